"""What is left of English in a text that is meant to be Chinese."""

import re
from collections.abc import Iterable

from vggtkit.model.outputs import OUTPUTS
from vggtkit.quant import FORMATS

_TERMS = (
    "FP32", "FP16", "INT8", "INT4", "NMSE", "MAE", "MSE", "RMSE", "PSNR", "SSIM", "CosSim", "CE", "RE", "CE excess",
    "AUC", "RRA", "RTA", "AbsRel", "Chamfer", "F-score", "delta", "Spearman", "Fisher", "MLP", "MB", "kB", "GB", "dB",
    "px", "VGGT", "DINOv", "GPU", "UTC", "softmax", "sketch", "plan", "optimal", "joint", "fp16", "Wang", "MAX", "mean",
    "sum", "eps", "log", "torch", "vit", "sym", "asym", "channel", "tensor", "two-level",
    "evaluate --execute int",
)  # fmt: skip
"""Words of the field, of formulas, and names of schemes, policies and scores."""
_NAMES = (
    r"python cli\.py[^|\n]*", r"\S+\.(?:json|png|txt|h5|md|html|npz|safetensors|py|jsonl)\b", r"[0-9a-f]{16,}",
    r"\w+[_.]\w[\w.]*", r"```sh",
)  # fmt: skip
"""Commands, files, digests, names of code, a fence of Markdown."""
_LETTERS = r"\b[A-Z]\b|\bg\d+\b"


def english_in(text: str, names: Iterable[str] = ()) -> set[str]:
    """Runs of English words that are no names.

    Args:
        text: to be looked at.
        names: further ones that are not to be translated.

    >>> english_in("INT4 g128 的损伤 is measured, depth_conf")
    {'is measured'}
    """
    titles = (title for form in FORMATS.values() for title in (form.title, form.short_title))
    words = sorted({*titles, *OUTPUTS, *_TERMS, *names}, key=len, reverse=True)
    escaped = "|".join(rf"(?<![A-Za-z]){re.escape(word)}(?![A-Za-z])" for word in words)
    rest = re.sub(f"{'|'.join(_NAMES)}|{escaped}|{_LETTERS}", " ", text.replace("\\", ""))
    return {" ".join(match.split()) for match in re.findall(r"[A-Za-z][A-Za-z'-]+(?:[ ]+[A-Za-z][A-Za-z'-]*)*", rest)}
