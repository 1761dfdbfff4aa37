"""Any torch module as a model: made by a function that the user names, fed by another."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from vggtkit.core.errors import InputError
from vggtkit.core.escaping import escape
from vggtkit.core.program import setting
from vggtkit.core.provenance import Say

_PLACE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_OURS = ("vggtkit", "sensitivity", "mixedprec", "analysis")
_PACKAGES = Path(__file__).resolve().parents[2]


def is_factory(source: str) -> bool:
    """Whether a source names a function, as ``package.module:function``.

    >>> is_factory("my_models.dpt:build"), is_factory("facebook/VGGT-1B"), is_factory("photos:holiday/day one")
    (True, False, False)
    """
    return _PLACE.fullmatch(source) is not None


def load_custom(source: str, device: str | torch.device = "cpu", say: Say = lambda _: None) -> nn.Module:
    """Call the function that makes a model, without arguments, and make its weights plain parameters.

    What wraps a model (``torch.compile``, data parallelism) is taken off, and weights that are computed from others
    (weight norm, spectral norm and other parametrizations) are replaced by what they are at the moment.

    Args:
        source: ``package.module:function``; modules of the current folder are found.
        device: where the model ends up.
        say: told what was taken off or replaced.

    Returns:
        The model in eval mode.

    Raises:
        InputError: there is no such function, it fails, or it makes no module whose weights can be seen.

    >>> load_custom("torch.nn:Identity")
    Traceback (most recent call last):
    vggtkit.core.errors.InputError: model='torch.nn:Identity': made Identity, which has no parameters
    """
    model = _call("model", source)
    if not isinstance(model, nn.Module):
        raise InputError(f"{setting('model', source)}: made {type(model).__name__}, which is no torch.nn.Module")
    model = unwrap(model, say)
    _check_parameters(model, source)
    leave_inference_mode(model)
    for name in bake_parametrizations(model):
        say(f"layer {name}: its weight is computed from other parameters; it is taken as it is now")
    return model.to(device).eval()


def load_inputs(source: str, count: int, skip: int = 0) -> list[tuple[Any, ...] | Mapping[str, Any]]:
    """What a model is to be called with: items that a function yields.

    Args:
        source: ``package.module:function``; every item is one call of the model: a tensor, a tuple of arguments, or a
            dictionary of named ones.
        count: items taken.
        skip: items before them that are left to others.

    Raises:
        InputError: there is no such function, it fails, it yields no tensors, or too few.
    """
    place = setting("inputs", source)
    yielded = _call("inputs", source)
    if not isinstance(yielded, Iterable) or isinstance(yielded, Tensor | str | Mapping):
        raise InputError(f"{place}: returned {type(yielded).__name__}; it must yield tensors, a scene each")
    try:
        items = [_as_call(source, item) for item in islice(yielded, skip, skip + count)]
    except InputError:
        raise
    except Exception as error:  # the user's own generator may raise anything
        raise InputError(f"{place}: failed with {describe_error(error)}") from error
    if not items and skip:
        raise InputError(f"{place}: yields no more than the {skip} scenes that were profiled; yield others after them")
    if not items:
        raise InputError(f"{place}: yielded nothing")
    return items


def unwrap(model: nn.Module, say: Say = lambda _: None) -> nn.Module:
    """A model without what ``torch.compile`` or data parallelism put around it.

    Raises:
        InputError: it, or a part with weights, is scripted, so that nothing inside of it can be seen.
    """
    while True:
        if isinstance(model, torch.jit.ScriptModule):
            raise InputError("the model is scripted: its layers cannot be reached; give the module before torch.jit")
        inner = getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module) and isinstance(
            model, nn.DataParallel | nn.parallel.DistributedDataParallel
        ):
            inner = model.module
        if not isinstance(inner, nn.Module):
            _check_parts(model)
            return model
        say(f"{type(model).__name__} is taken off: what it wraps is measured")
        model = inner


def _check_parts(model: nn.Module) -> None:
    for name, part in model.named_modules():
        if isinstance(part, torch.jit.ScriptModule) and any(True for _ in part.parameters()):
            raise InputError(
                f"the part {escape(name)} of the model is scripted: its layers cannot be reached; "
                "give it before torch.jit"
            )


def leave_inference_mode(model: nn.Module) -> None:
    """Replace parameters and buffers that were made under ``torch.inference_mode``, which allow no gradients, in place.

    >>> with torch.inference_mode():
    ...     model = nn.Linear(2, 2)
    >>> leave_inference_mode(model)
    >>> model.weight.is_inference()
    False
    """
    copies: dict[int, Tensor] = {}
    for module in model.modules():
        places: list[dict[str, Any]] = [module._parameters, module._buffers]
        for place in places:
            for name, value in place.items():
                if isinstance(value, Tensor) and value.is_inference():
                    copied = nn.Parameter(value.clone(), value.requires_grad) if place is places[0] else value.clone()
                    place[name] = copies.setdefault(id(value), copied)


def bake_parametrizations(model: nn.Module) -> list[str]:
    """Replace every weight that is computed from other parameters by its present value, in place.

    Returns:
        Names of the modules whose weight it was.

    >>> layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    >>> bake_parametrizations(nn.Sequential(layer)), isinstance(layer.weight, nn.Parameter)
    (['0'], True)
    """
    baked = []
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for parameter in list(module.parametrizations):
                parametrize.remove_parametrizations(module, parameter, leave_parametrized=True)
                _as_parameter(module, parameter)
            baked.append(name)
        hooks: list[Any] = list(module._forward_pre_hooks.values())
        for hook in hooks:  # the generation of hooks: weight and spectral norm
            if hasattr(hook, "remove") and hasattr(hook, "name") and not isinstance(hook, nn.Module):
                _remove_norm_hook(module, hook)
                baked.append(name)
    return baked


def describe_error(error: BaseException) -> str:
    """An exception of the user's code in one line: its kind, what it says, and where it was raised.

    >>> describe_error(ValueError("no such weights"))
    'ValueError: no such weights'
    """
    reason = " ".join(str(error).split())
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_library(f.filename)]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno}, in {frames[-1].name})" if frames else ""
    return f"{type(error).__name__}: {reason}{where}"


def raised_by_us(error: BaseException) -> bool:
    """Whether an exception comes from our own code, say a hook, and not from the model's."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _is_ours(frame.filename) or not _is_library(frame.filename)]
    return bool(ours) and _is_ours(ours[-1].filename) and Path(ours[-1].filename).name != Path(__file__).name


def _is_ours(filename: str) -> bool:
    path = Path(filename)
    return path.is_relative_to(_PACKAGES) and path.relative_to(_PACKAGES).parts[0] in _OURS


def _is_library(filename: str) -> bool:
    """Torch's own files and the interpreter's, which are on the way of every error."""
    return _is_ours(filename) or "site-packages" in filename or filename.startswith(("<", sys.base_prefix))


def _remove_norm_hook(module: nn.Module, hook: Any) -> None:  # noqa: ANN401 - torch has no type for them
    hooks: dict[int, Any] = dict(module._forward_pre_hooks)
    for key, other in hooks.items():
        if other is hook:
            with torch.no_grad():
                hook(module, None)  # computes the weight once more, as it would before the next pass
            hook.remove(module)
            del module._forward_pre_hooks[key]


def _as_parameter(module: nn.Module, name: str) -> None:
    """Make a parameter of what torch leaves as a buffer, because its origin was frozen."""
    value = module._buffers.pop(name, None)
    if value is not None:
        module.register_parameter(name, nn.Parameter(value.detach(), requires_grad=False))


def _check_parameters(model: nn.Module, source: str) -> None:
    place = setting("model", source)
    if next(model.parameters(), None) is None:
        raise InputError(f"{place}: made {type(model).__name__}, which has no parameters")
    for name, parameter in model.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise InputError(f"{place}: {name} has no shape yet (lazy module); call the model once where it is made")
        if parameter.device.type == "meta":
            raise InputError(f"{place}: {name} is on the meta device, without values; load its weights")


def _as_call(source: str, item: object) -> tuple[Any, ...] | Mapping[str, Any]:
    """An item as the arguments of one call."""
    if isinstance(item, Tensor):
        return (item,)
    values = list(item.values()) if isinstance(item, Mapping) else item
    if not isinstance(values, list | tuple) or not any(isinstance(value, Tensor) for value in values):
        raise InputError(
            f"{setting('inputs', source)}: yielded {type(item).__name__}; "
            "it must yield tensors, tuples or dictionaries of them"
        )
    return {str(key): value for key, value in item.items()} if isinstance(item, Mapping) else tuple(values)


def _call(name: str, source: str) -> Any:  # noqa: ANN401
    """What the function returns that a setting of this name gives."""
    place = setting(name, source)
    module, _, function_name = source.partition(":")
    if not is_factory(source):
        raise InputError(f"{place}: give package.module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        function: Callable[[], Any] = getattr(importlib.import_module(module), function_name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{place}: cannot be imported ({error}); is its folder on PYTHONPATH?") from error
    except Exception as error:  # the user's own module may raise anything while it is imported
        raise InputError(f"{place}: its module failed with {describe_error(error)}") from error
    try:
        return function()
    except Exception as error:  # the user's own code may raise anything
        raise InputError(f"{place}: failed with {describe_error(error)}") from error
