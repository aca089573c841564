"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);

  function drawCharts() {
    for (const [key, spec] of Object.entries(data.charts)) {
      const box = document.getElementById("chart-" + key);
      if (!box || !window.Plotly) continue;
      if (box.clientWidth < 420) {
        // The legend above a narrow chart has two entries a line.
        const lines = Math.ceil(spec.data.filter((t) => t.name).length / 2);
        spec.layout.margin.t = 14 + 20 * lines;
        box.style.height = 290 + 20 * (lines - 1) + "px";
      }
      Plotly.newPlot(box, spec.data, spec.layout, { displayModeBar: false, doubleClick: false });
      new ResizeObserver(() => box.clientWidth && Plotly.Plots.resize(box)).observe(box);
      // A point of the last chart leads to the card of its crystal.
      box.on("plotly_click", (event) => {
        const id = event.points[0].customdata;
        const row = Array.from(document.querySelectorAll("[data-id]")).find((card) => card.dataset.id === id);
        if (row) location.hash = row.id;
      });
    }
  }

  function sortTable(table, column, head) {
    const body = table.tBodies[0];
    const numeric = head.dataset.kind === "number";
    const up = head.getAttribute("aria-sort") !== "ascending";
    const keyed = Array.from(body.rows, (row, place) => {
      const cell = row.cells[column];
      const text = cell.dataset.v !== undefined ? cell.dataset.v : cell.textContent;
      return { row, place, key: numeric ? parseFloat(text) : text };
    });
    keyed.sort((a, b) => {
      if (numeric) {
        // What is not known stands last in either direction.
        const missing = Number.isNaN(a.key) - Number.isNaN(b.key);
        if (missing || Number.isNaN(a.key)) return missing || a.place - b.place;
        return (up ? a.key - b.key : b.key - a.key) || a.place - b.place;
      }
      return (up ? 1 : -1) * a.key.localeCompare(b.key, "en", { numeric: true }) || a.place - b.place;
    });
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    body.append(...keyed.map((k) => k.row));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
      const button = head.querySelector("button");
      if (button) button.addEventListener("click", () => sortTable(table, column, head));
    });
  }

  // A link to a card behind a fold opens the fold.
  function reveal() {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    const fold = target && target.closest("details");
    if (fold && !fold.open) {
      fold.open = true;
      target.scrollIntoView();
    }
  }
  window.addEventListener("hashchange", reveal);
  window.addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("details")) fold.open = true;
    // Paper is narrower than the window: charts keep their drawing and are scaled to it.
    for (const svg of document.querySelectorAll(".chart .main-svg")) {
      if (!svg.hasAttribute("viewBox") && svg.clientWidth) {
        svg.setAttribute("viewBox", "0 0 " + svg.getAttribute("width") + " " + svg.getAttribute("height"));
      }
    }
  });

  if (window.onnesViewer) window.onnesViewer(data.models);
  drawCharts();
  reveal();
})();
