"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");

  // Tables: a click on a column's name sorts by it, words typed into the field filter the rows.
  const key = (row, column) => {
    const cell = row.cells[column];
    const text = cell.textContent.trim();
    if (cell.dataset.value !== undefined && cell.dataset.value !== "") return Number(cell.dataset.value);
    const number = text.replace(/[,\s]/g, "").match(/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?/i);
    return number && !cell.classList.contains("words") ? Number(number[0]) : text.toLowerCase();
  };
  const compare = (a, b) => {
    const numbers = (typeof a === "number") + (typeof b === "number");
    if (numbers === 2) return (Number.isNaN(a) - Number.isNaN(b)) || a - b;
    return numbers === 1 ? (typeof a === "number" ? -1 : 1) : a.localeCompare(b, undefined, { numeric: true });
  };
  for (const table of document.querySelectorAll(".table table")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [key(row, column), row]);
      rows.sort((a, b) => (down ? -1 : 1) * compare(a[0], b[0]));
      body.append(...rows.map((pair) => pair[1]));
    }));
    const filter = table.closest(".table").querySelector(".filter");
    if (!filter) continue;
    filter.hidden = false;
    const field = filter.querySelector("input"), count = filter.querySelector("output");
    const apply = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of body.rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      count.textContent = `${shown} / ${body.rows.length}`;
    };
    field.addEventListener("input", apply);
    apply();
  }

  // What a point or field stands for, beside the pointer or the focus.
  const showTip = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 4))}px`;
    tip.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - box.height - 4))}px`;
  };
  const hideTip = () => { tip.hidden = true; };
  for (const dot of document.querySelectorAll(".scatter g.dot[tabindex]")) {
    const text = dot.getAttribute("aria-label");
    const beside = () => { const box = dot.firstElementChild.getBoundingClientRect(); showTip(text, box.right, box.bottom); };
    dot.addEventListener("pointerenter", beside);
    dot.addEventListener("focus", beside);
    dot.addEventListener("pointerleave", hideTip);
    dot.addEventListener("blur", hideTip);
  }
  addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  addEventListener("scroll", hideTip, { passive: true });

  // Fields of numbers: one coloured rectangle a number, on a logarithmic scale.
  const colour = (share) => {
    const place = Math.max(0, Math.min(1, share)) * (data.colours.length - 1);
    const low = Math.floor(place), rest = place - low;
    const from = data.colours[low], to = data.colours[Math.min(low + 1, data.colours.length - 1)];
    return `rgb(${from.map((part, index) => Math.round(part + rest * (to[index] - part))).join(",")})`;
  };
  const heat = (figure, chart) => {
    const canvas = figure.querySelector("canvas[tabindex]"), read = figure.querySelector(".read");
    const numbers = chart.values.flat().filter((value) => value !== null && value > 0).sort((a, b) => a - b);
    if (!numbers.length) { canvas.hidden = true; return; }
    const low = Math.log10(numbers[Math.floor(0.02 * (numbers.length - 1))]), high = Math.log10(numbers[numbers.length - 1]);
    const share = (value) => (high > low ? (Math.log10(value) - low) / (high - low) : 1);
    const rows = chart.rows.length, columns = chart.columns.length;
    const rowHeight = Math.max(3, Math.min(18, Math.floor(1000 / rows)));
    let left = 0, top = 0, wide = 0, at = null;
    const draw = () => {
      const style = getComputedStyle(document.documentElement), ratio = devicePixelRatio || 1;
      const width = Math.max(canvas.clientWidth, 200);
      const groups = chart.groups.length ? chart.groups : chart.rows;
      const context = canvas.getContext("2d");
      context.font = "12px system-ui, sans-serif";
      left = Math.min(0.3 * width, 8 + Math.max(...new Set(groups.map((name) => context.measureText(name).width))));
      top = 10 + Math.max(...chart.columns.map((name) => context.measureText(name).width)) * 0.9;
      const height = top + rows * rowHeight + 2;
      canvas.style.height = `${height}px`;
      canvas.width = width * ratio;
      canvas.height = height * ratio;
      context.scale(ratio, ratio);
      context.font = "12px system-ui, sans-serif";
      context.fillStyle = style.getPropertyValue("--text");
      wide = (width - left - 40) / columns;
      chart.columns.forEach((name, column) => {
        if (wide < 13 && column % Math.ceil(13 / wide)) return;
        context.save();
        context.translate(left + (column + 0.5) * wide, top - 6);
        context.rotate(-1.15);
        context.fillText(name, 0, 0);
        context.restore();
      });
      let written = -20;
      context.textAlign = "right";
      groups.forEach((name, row) => {
        if (row && name === groups[row - 1]) return;
        const y = top + row * rowHeight;
        context.fillStyle = style.getPropertyValue("--line");
        context.fillRect(left - 6, y, 6, 1);
        if (y - written < 13) return;
        written = y;
        context.fillStyle = style.getPropertyValue("--text");
        context.fillText(name, left - 8, y + 10, left - 10);
      });
      chart.values.forEach((line, row) => line.forEach((value, column) => {
        context.fillStyle = value === null || value <= 0 ? style.getPropertyValue("--surface") : colour(share(value));
        context.fillRect(left + column * wide, top + row * rowHeight, Math.max(1, wide - (wide > 6)), Math.max(1, rowHeight - (rowHeight > 5)));
      }));
      context.fillStyle = style.getPropertyValue("--mark");
      chart.marks.forEach((column, row) => {
        if (column === null) return;
        const high = Math.max(2, rowHeight - 2);
        context.fillRect(left + (column + 0.35) * wide, top + row * rowHeight + (rowHeight - high) / 2, 0.3 * wide, high - (rowHeight > 5));
      });
      if (at) {
        context.strokeStyle = style.getPropertyValue("--plan");
        context.lineWidth = 2;
        context.strokeRect(left + at[1] * wide - 1, top + at[0] * rowHeight - 1, wide + 1, rowHeight + 1);
      }
    };
    const say = (row, column) => {
      const value = chart.values[row][column];
      return `${chart.rows[row]}, ${chart.columns[column]}: ${value === null ? "-" : value.toExponential(2)}${chart.marks[row] === column ? ` (${figure.dataset.mark})` : ""}`;
    };
    const field = (event) => {
      const box = canvas.getBoundingClientRect();
      const row = Math.floor((event.clientY - box.top - top) / rowHeight), column = Math.floor((event.clientX - box.left - left) / wide);
      return row >= 0 && row < rows && column >= 0 && column < columns ? [row, column] : null;
    };
    canvas.addEventListener("pointermove", (event) => {
      const found = field(event);
      if (!found) { hideTip(); return; }
      showTip(say(...found), event.clientX, event.clientY);
    });
    canvas.addEventListener("pointerleave", hideTip);
    const go = (row, column) => {
      at = [Math.max(0, Math.min(rows - 1, row)), Math.max(0, Math.min(columns - 1, column))];
      read.textContent = say(...at);
      draw();
    };
    canvas.addEventListener("click", (event) => { const found = field(event); if (found) go(...found); });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [-10, 0], PageDown: [10, 0] }[event.key];
      if (!step) return;
      event.preventDefault();
      go((at ? at[0] : 0) + step[0], (at ? at[1] : 0) + step[1]);
    });
    const bar = figure.querySelector(".bar").getContext("2d");
    for (let x = 0; x < 256; x += 1) { bar.fillStyle = colour(x / 255); bar.fillRect(x, 0, 1, 1); }
    figure.querySelector(".low").textContent = `≤ ${(10 ** low).toExponential(0)}`;
    figure.querySelector(".high").textContent = (10 ** high).toExponential(0);
    draw();
    return draw;
  };
  const figures = [...document.querySelectorAll("figure.heat")];
  const redraw = figures.map((figure, number) => heat(figure, data["heat maps"][number])).filter(Boolean);
  let waiting = 0;
  const again = () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(() => redraw.forEach((draw) => draw())); };
  addEventListener("resize", again);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);

  // Depth: the slider moves the edge, the list changes the scheme.
  for (const frame of document.querySelectorAll(".depth .frame")) {
    const range = frame.querySelector("input"), list = frame.querySelector("select");
    const stack = frame.querySelector(".over").parentElement;
    range.addEventListener("input", () => stack.style.setProperty("--seen", `${range.value}%`));
    const choose = () => {
      for (const part of frame.querySelectorAll("[data-scheme]")) part.hidden = part.dataset.scheme !== list.value;
      frame.querySelector(".name").textContent = list.selectedOptions[0].textContent;
    };
    list.addEventListener("change", choose);
  }

  const theme = document.getElementById("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    again();
  });
})();
