"use strict";
// A small 3D view of a unit cell on a 2D canvas: shaded discs, two-coloured bonds and cell edges, painted
// from back to front in parallel projection.
window.onnesViewer = function (models) {
  // The third axis of the crystal points up, tipped a little towards the viewer.
  const START = turn(turn([1, 0, 0, 0, 1, 0, 0, 0, 1], "z", -0.5), "x", -1.3);
  const EDGE_PARTS = 8;

  function multiply(a, b) {
    const c = new Array(9).fill(0);
    for (let i = 0; i < 3; i++) for (let j = 0; j < 3; j++) for (let k = 0; k < 3; k++) c[3 * i + j] += a[3 * i + k] * b[3 * k + j];
    return c;
  }

  // The rotation m followed by one about an axis of the screen.
  function turn(m, axis, angle) {
    const c = Math.cos(angle), s = Math.sin(angle);
    const about = { x: [1, 0, 0, 0, c, -s, 0, s, c], y: [c, 0, s, 0, 1, 0, -s, 0, c], z: [c, -s, 0, s, c, 0, 0, 0, 1] };
    return multiply(about[axis], m);
  }

  function apply(m, p) {
    return [0, 3, 6].map((r) => m[r] * p[0] + m[r + 1] * p[1] + m[r + 2] * p[2]);
  }

  function shade(hex, factor) {
    const part = (k) => {
      const v = parseInt(hex.slice(k, k + 2), 16);
      return Math.round(factor > 0 ? v + (255 - v) * factor : v * (1 + factor));
    };
    return `rgb(${part(1)},${part(3)},${part(5)})`;
  }

  function cellEdges(lattice) {
    const corner = (i, j, k) => [0, 1, 2].map((x) => i * lattice[0][x] + j * lattice[1][x] + k * lattice[2][x]);
    const edges = [];
    for (const u of [0, 1]) for (const v of [0, 1]) {
      edges.push([corner(0, u, v), corner(1, u, v)], [corner(u, 0, v), corner(u, 1, v)], [corner(u, v, 0), corner(u, v, 1)]);
    }
    return edges;
  }

  class View {
    constructor(canvas, model) {
      this.canvas = canvas;
      this.model = model;
      this.rotation = START;
      this.zoom = 1;
      this.pointers = new Map();
      this.edges = cellEdges(model.lattice);
      const points = model.atoms.map((a) => a.slice(1)).concat(this.edges.flat());
      this.middle = [0, 1, 2].map((x) => {
        const values = this.edges.flat().map((p) => p[x]);
        return (Math.min(...values) + Math.max(...values)) / 2;
      });
      this.largest = Math.max(0.5, ...model.elements.map((e) => e[2]));
      const seen = points.map((p) => apply(START, p.map((v, x) => v - this.middle[x])));
      // Half the width and height of the first view, and the radius that no rotation exceeds.
      this.half = [0, 1].map((x) => this.largest + Math.max(...seen.map((p) => Math.abs(p[x]))));
      this.reach = this.largest + Math.max(...seen.map((p) => Math.hypot(...p)));
      this.listen();
    }

    listen() {
      const on = (name, action, options) => this.canvas.addEventListener(name, action, options);
      on("pointerdown", (e) => {
        this.canvas.focus({ preventScroll: true });
        this.canvas.setPointerCapture(e.pointerId);
        this.pointers.set(e.pointerId, [e.clientX, e.clientY]);
      });
      on("pointermove", (e) => this.move(e));
      for (const name of ["pointerup", "pointercancel"]) on(name, (e) => this.pointers.delete(e.pointerId));
      on("dblclick", () => this.set(START, 1));
      // The wheel scrolls the page until a view has been chosen by pressing it.
      on("wheel", (e) => {
        if (document.activeElement !== this.canvas) return;
        e.preventDefault();
        this.set(this.rotation, this.zoom * Math.exp(-0.0015 * e.deltaY));
      }, { passive: false });
      on("keydown", (e) => {
        const step = { ArrowLeft: ["y", -0.1], ArrowRight: ["y", 0.1], ArrowUp: ["x", -0.1], ArrowDown: ["x", 0.1] }[e.key];
        const zoom = { "+": 1.15, "=": 1.15, "-": 1 / 1.15 }[e.key];
        if (step) this.set(turn(this.rotation, ...step), this.zoom);
        else if (zoom) this.set(this.rotation, this.zoom * zoom);
        else if (e.key === "0") this.set(START, 1);
        else return;
        e.preventDefault();
      });
    }

    move(e) {
      const before = this.pointers.get(e.pointerId);
      if (!before) return;
      const spread = () => {
        const [a, b] = [...this.pointers.values()];
        return Math.hypot(a[0] - b[0], a[1] - b[1]);
      };
      const now = [e.clientX, e.clientY];
      if (this.pointers.size === 2) {
        const old = spread();
        this.pointers.set(e.pointerId, now);
        this.set(this.rotation, this.zoom * (spread() / Math.max(old, 1)));
        return;
      }
      this.pointers.set(e.pointerId, now);
      this.set(turn(turn(this.rotation, "y", (now[0] - before[0]) * 0.01), "x", (now[1] - before[1]) * 0.01), this.zoom);
    }

    set(rotation, zoom) {
      this.rotation = rotation;
      this.zoom = Math.min(8, Math.max(0.3, zoom));
      if (!this.waiting) {
        this.waiting = true;
        requestAnimationFrame(() => this.draw());
      }
    }

    draw() {
      this.waiting = false;
      const width = this.canvas.clientWidth, height = this.canvas.clientHeight;
      if (!width || !height) return;
      const ratio = window.devicePixelRatio || 1;
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      const pen = this.canvas.getContext("2d");
      pen.scale(ratio, ratio);
      // The first view fills the canvas; a long cell may reach over the edge when it is turned, by a third at most.
      const fitting = 0.46 * Math.min(width / this.half[0], height / this.half[1]);
      const scale = Math.min(fitting, 0.65 * Math.min(width, height) / this.reach) * this.zoom;
      const place = (p) => {
        const [x, y, z] = apply(this.rotation, p.map((v, k) => v - this.middle[k]));
        return [width / 2 + scale * x, height / 2 - scale * y, z];
      };
      const shapes = [...this.edgeShapes(place), ...this.atomShapes(place, scale)];
      shapes.sort((a, b) => a.depth - b.depth).forEach((s) => s.paint(pen));
    }

    edgeShapes(place) {
      const shapes = [];
      for (const [from, to] of this.edges) {
        const a = place(from), b = place(to);
        const at = (t) => a.map((v, k) => v + t * (b[k] - v));
        for (let k = 0; k < EDGE_PARTS; k++) {
          const p = at(k / EDGE_PARTS), q = at((k + 1) / EDGE_PARTS);
          shapes.push({ depth: (p[2] + q[2]) / 2, paint: (pen) => line(pen, p, q, "#8b929c", 1) });
        }
      }
      return shapes;
    }

    atomShapes(place, scale) {
      const { atoms, bonds, elements } = this.model;
      const spots = atoms.map((a) => place(a.slice(1)));
      const shapes = [];
      for (const [i, j] of bonds) {
        const half = spots[i].map((v, k) => (v + spots[j][k]) / 2);
        for (const [end, other] of [[i, half], [j, half]]) {
          const colour = shade(elements[atoms[end][0]][1], -0.12);
          shapes.push({ depth: (spots[end][2] + 3 * other[2]) / 4 - 1e-3, paint: (pen) => line(pen, spots[end], other, colour, Math.max(1.5, 0.16 * scale)) });
        }
      }
      atoms.forEach((a, k) => {
        const [, colour, radius] = elements[a[0]];
        shapes.push({ depth: spots[k][2], paint: (pen) => ball(pen, spots[k], Math.max(2, radius * scale), colour) });
      });
      return shapes;
    }
  }

  function line(pen, a, b, colour, width) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.lineCap = "round";
    pen.beginPath();
    pen.moveTo(a[0], a[1]);
    pen.lineTo(b[0], b[1]);
    pen.stroke();
  }

  function ball(pen, [x, y], radius, colour) {
    const light = pen.createRadialGradient(x - 0.35 * radius, y - 0.4 * radius, 0.1 * radius, x, y, radius);
    light.addColorStop(0, shade(colour, 0.6));
    light.addColorStop(0.55, colour);
    light.addColorStop(1, shade(colour, -0.35));
    pen.fillStyle = light;
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.fill();
    pen.strokeStyle = "rgba(0,0,0,.3)";
    pen.lineWidth = 0.75;
    pen.stroke();
  }

  const views = new Map();
  // A view is built when it is first seen, and drawn again when its size changes.
  const resized = new ResizeObserver((entries) => entries.forEach((e) => views.get(e.target).draw()));
  function build(canvas) {
    if (views.has(canvas)) return;
    views.set(canvas, new View(canvas, models[Number(canvas.dataset.model)]));
    resized.observe(canvas);
  }
  const seen = new IntersectionObserver((entries) => {
    for (const e of entries) if (e.isIntersecting) { build(e.target); seen.unobserve(e.target); }
  }, { rootMargin: "300px" });
  const canvases = document.querySelectorAll("canvas.view");
  canvases.forEach((canvas) => seen.observe(canvas));
  window.addEventListener("beforeprint", () => canvases.forEach((canvas) => { build(canvas); views.get(canvas).draw(); }));
};
