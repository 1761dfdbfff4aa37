"use strict";
(() => {
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
  const work = (table) => {
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
    if (!filter) return;
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
  };
  document.querySelectorAll(".table table").forEach(work);

  // Charts: drawn by Plotly in the page's colours; arrow keys move through what they hold.
  const colours = getComputedStyle(document.documentElement);
  const painted = (text) => JSON.parse(text, (key, value) => (
    /color$/.test(key) && typeof value === "string" && value.startsWith("var(") ? colours.getPropertyValue(value.slice(4, -1)).trim() : value
  ));
  const plain = (text) => text.replaceAll("&lt;", "<").replaceAll("&amp;", "&");
  const stopsOf = (traces) => {
    const told = traces.map((trace, curveNumber) => ({ ...trace, curveNumber })).filter((trace) => trace.hovertext);
    if (!told.length) return [];
    if (told[0].type === "heatmap") return told[0].hovertext.map((line, yval) => line.map((text, xval) => ({ text, at: { xval, yval } })));
    const stops = told.map((trace) => trace.hovertext.map((text, pointNumber) => (
      { text, x: trace.x[pointNumber], at: [{ curveNumber: trace.curveNumber, pointNumber }] }
    )));
    if (told[0].type === "bar") return stops[0].map((_, row) => stops.map((series) => series[row]));
    return [stops.flat().sort((a, b) => a.x - b.x)];
  };
  const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [-10, 0], PageDown: [10, 0] };
  const chart = (figure) => {
    const plot = figure.querySelector(".drawing"), read = figure.querySelector(".read"), details = figure.querySelector("details");
    const text = figure.querySelector("script").textContent;
    details.open = read.hidden = false;
    // The table that stands there for want of a script is made when it is asked for: fields have thousands of numbers.
    details.querySelector("summary").addEventListener("click", () => {
      details.insertAdjacentHTML("beforeend", details.querySelector("noscript").textContent);
      details.querySelectorAll("table").forEach(work);
    }, { once: true });
    // On paper the drawing is scaled to the width of the sheet, which the style does once it knows its own size.
    const measure = () => {
      const [width, height] = ["width", "height"].map((side) => plot.querySelector(".main-svg").getAttribute(side));
      plot.style.setProperty("--aspect", `${width} / ${height}`);
      for (const svg of plot.querySelectorAll(".main-svg")) svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    };
    const draw = () => {
      const { data, layout } = painted(text);
      Plotly.react(plot, data, layout, { displayModeBar: false, responsive: true });
      measure();
    };
    draw();
    plot.on("plotly_afterplot", measure);
    const stops = stopsOf(JSON.parse(text).data);
    let at = null;
    plot.addEventListener("keydown", (event) => {
      if (event.key === "Escape") Plotly.Fx.unhover(plot);
      const step = STEPS[event.key];
      if (!step || !stops.length) return;
      event.preventDefault();
      const row = Math.max(0, Math.min(stops.length - 1, (at ? at[0] : 0) + step[0]));
      at = [row, Math.max(0, Math.min(stops[row].length - 1, (at ? at[1] : 0) + step[1]))];
      const stop = stops[at[0]][at[1]];
      read.textContent = plain(stop.text);
      Plotly.Fx.hover(plot, stop.at);
    });
    plot.addEventListener("blur", () => Plotly.Fx.unhover(plot));
    return draw;
  };
  // Plotly takes a second to start: the page is seen first, and then one chart after the other.
  const waiting = [...document.querySelectorAll("figure.chart")], draws = [];
  const drawOne = () => {
    if (typeof Plotly === "undefined") {
      const plotting = document.createElement("script");
      plotting.textContent = document.getElementById("plotting").textContent;
      document.head.append(plotting);
    }
    draws.push(chart(waiting.shift()));
  };
  const drawAll = () => { if (waiting.length) { drawOne(); setTimeout(drawAll); } };
  const repaint = () => { draws.forEach((draw) => draw()); while (waiting.length) drawOne(); };
  for (const asked of ["(prefers-color-scheme: dark)", "print"]) matchMedia(asked).addEventListener("change", repaint);
  addEventListener("load", () => requestAnimationFrame(() => setTimeout(drawAll)));

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
    repaint();
  });
})();
