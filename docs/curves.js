// Curves of a loss that follow sliders, on its page: no server, nothing loaded from elsewhere.
// The formulas are those of the package; tests/docs/test_curves.py compares their numbers with it.
"use strict";

const sigmoid = (z) => 1 / (1 + Math.exp(-z));
const softplus = (z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z)));
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const bce = (z, t) => softplus(z) - t * z;
const oneMinusPt = (z, t) => t * sigmoid(-z) + (1 - t) * sigmoid(z);
const balance = (t, alpha) => (alpha < 0 ? 1 : t * alpha + (1 - t) * (1 - alpha));
const focal = (z, t, gamma, alpha) => balance(t, alpha) * oneMinusPt(z, t) ** gamma * bce(z, t);
const slideWeight = (t, s) => {
  const mean = Math.max(s.mean_iou, s.min_iou);
  return t <= mean - s.delta ? 1 : Math.exp(1 - Math.max(t, mean));
};
const equalized = (s) => s.gamma + s.scale * (1 - s.q);

// Loss of a logit z with target t and parameters s; z0 is z where the gradient does not flow.
const CLASS = {
  bce: (z, t) => bce(z, t),
  focal: (z, t, s) => focal(z, t, s.gamma, s.alpha),
  poly: (z, t, s) => focal(z, t, s.gamma, s.alpha) + s.epsilon * oneMinusPt(z, t) ** (s.gamma + 1),
  qfl: (z, t, s) => balance(t, s.alpha) * Math.abs(t - sigmoid(z)) ** s.beta * bce(z, t),
  vfl: (z, t, s, z0) =>
    (t > 0 ? (s.iou_weighted ? t : 1) : s.alpha * sigmoid(s.detach_weight ? z0 : z) ** s.gamma) * bce(z, t),
  mal: (z, t, s, z0) => (t > 0 ? 1 : sigmoid(z0) ** s.gamma) * bce(z, t > 0 ? t ** s.gamma : 0),
  asl: (z, t, s, z0) => {
    const log = (x) => Math.log(Math.max(x, 1e-8));
    const shifted = (at) => Math.max(sigmoid(at) - s.shift, 0);
    const at = s.detach_weight ? z0 : z;
    const weight = (t * sigmoid(-at) + (1 - t) * shifted(at)) ** (t * s.gamma_pos + (1 - t) * s.gamma_neg);
    return -(t * log(sigmoid(z)) + (1 - t) * log(1 - shifted(z))) * weight;
  },
  slide: (z, t, s) => slideWeight(t, s) * bce(z, t),
  ema_slide: (z, t, s) => slideWeight(t, s) * bce(z, t),
  efl: (z, t, s) => (equalized(s) / s.gamma) * focal(z, t, equalized(s), s.alpha),
  eqfl: (z, t, s) => (equalized(s) / s.gamma) * Math.abs(t - sigmoid(z)) ** equalized(s) * bce(z, t),
};

// Geometry of a box a and its target b, each [x, y, w, h].
function geometry(a, b) {
  const edges = ([x, y, w, h]) => [x - w / 2, y - h / 2, x + w / 2, y + h / 2];
  const [p, q] = [edges(a), edges(b)];
  const side = (i) => Math.max(Math.min(p[i + 2], q[i + 2]) - Math.max(p[i], q[i]), 0);
  const shared = side(0) * side(1);
  const union = a[2] * a[3] + b[2] * b[3] - shared;
  const [cw, ch] = [0, 1].map((i) => Math.max(p[i + 2], q[i + 2]) - Math.min(p[i], q[i]));
  const [dx, dy] = [a[0] - b[0], a[1] - b[1]];
  const [w, h, w2, h2] = [a[2], a[3], b[2], b[3]];
  return { p, q, iou: shared / union, union, cw, ch, c2: cw * cw + ch * ch, dx, dy, r2: dx * dx + dy * dy, w, h, w2, h2 };
}
const apart = (x, y) => Math.abs(x - y) / Math.max(x, y);
function aspect(g, iou) {
  const v = (4 / Math.PI ** 2) * (Math.atan(g.w / g.h) - Math.atan(g.w2 / g.h2)) ** 2;
  return v ? (v * v) / (v - iou + 1) : 0;
}
/** IoU of the target with the box the share alpha of the way from the predicted box to it. */
function interpolated(g, alpha) {
  const [x1, y1, x2, y2] = g.p.map((edge, i) => g.q[i] + (1 - alpha) * (edge - g.q[i]));
  const target = [(g.q[0] + g.q[2]) / 2, (g.q[1] + g.q[3]) / 2, g.w2, g.h2];
  return geometry([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], target).iou;
}
const edgeDistance = (g) =>
  [0, 1, 2, 3].reduce((sum, i) => sum + Math.abs(g.p[i] - g.q[i]) / (i % 2 ? g.h2 : g.w2), 0) / 4;
function focus(degree, s) {
  if (s.version === 1) return 1;
  return s.version === 2 ? Math.sqrt(degree) : degree / (s.delta * s.alpha ** (degree - s.delta));
}
const OBJECT = 60; // pixels, the width of the object; its height is two thirds of it
const IMAGE = 640;
const MEAN_LOSS = 0.5;

// Penalties that are added to 1 - IoU, by geometry, IoU and parameters; a modifier changes the IoU in front of them.
const PENALTIES = {
  iou: () => [],
  giou: (g) => [(g.cw * g.ch - g.union) / (g.cw * g.ch)],
  diou: (g) => [g.r2 / g.c2],
  ciou: (g, iou) => [g.r2 / g.c2, aspect(g, iou)],
  eiou: (g) => [g.r2 / g.c2, (g.w - g.w2) ** 2 / g.cw ** 2, (g.h - g.h2) ** 2 / g.ch ** 2],
  siou: (g, iou, s) => {
    const sine = g.r2 ? Math.min(Math.abs(g.dx), Math.abs(g.dy)) / Math.sqrt(g.r2) : 0;
    const gamma = 2 - Math.sin(2 * Math.asin(sine));
    const distance = 2 - Math.exp(-gamma * (g.dx / g.cw) ** 2) - Math.exp(-gamma * (g.dy / g.ch) ** 2);
    const shape = [apart(g.w, g.w2), apart(g.h, g.h2)].reduce((sum, x) => sum + (1 - Math.exp(-x)) ** s.theta, 0);
    return [(distance + shape) / 2];
  },
  shape_iou: (g, iou, s) => {
    const ww = (2 * g.w2 ** s.scale) / (g.w2 ** s.scale + g.h2 ** s.scale);
    const hh = 2 - ww;
    const shape = (1 - Math.exp(-hh * apart(g.w, g.w2))) ** 4 + (1 - Math.exp(-ww * apart(g.h, g.h2))) ** 4;
    return [(hh * g.dx ** 2 + ww * g.dy ** 2) / g.c2, shape / 2];
  },
  mpdiou: (g) => {
    const corner = (i) => (g.p[i] - g.q[i]) ** 2 + (g.p[i + 1] - g.q[i + 1]) ** 2;
    return [(corner(0) + corner(2)) / (2 * IMAGE ** 2)];
  },
  piou: (g) => [1 - Math.exp(-(edgeDistance(g) ** 2))],
  interp_iou: (g, iou, s) => [1 - interpolated(g, s.alpha)],
  d_interp_iou: (g, iou, s) => [1 - interpolated(g, clamp(1 - iou, s.low, s.high))],
};
const added = (name, g, s, iou = g.iou) => PENALTIES[name](g, iou, s).reduce((sum, x) => sum + x, 1 - iou);
const BOX = {
  ...Object.fromEntries(Object.keys(PENALTIES).map((name) => [name, (g, s) => added(name, g, s)])),
  piou2: (g, s) => {
    const x = s.lambda_ * Math.exp(-edgeDistance(g));
    return 3 * x * Math.exp(-x * x) * added("piou", g, s);
  },
  wiou: (g, s) => focus((1 - g.iou) / MEAN_LOSS, s) * Math.exp(g.r2 / g.c2) * (1 - g.iou),
  nwd: (g, s) => {
    const distance = Math.sqrt(g.r2 + ((g.w - g.w2) ** 2 + (g.h - g.h2) ** 2) / 4);
    return s.ratio * (1 - Math.exp(-distance / s.constant)) + (1 - s.ratio) * added("ciou", g, s);
  },
  gcd: (g) => {
    const square = (x) => x * x;
    let sum = 0;
    for (const [shift, one, other] of [[g.dx, g.w, g.w2], [g.dy, g.h, g.h2]])
      for (const side of [one, other]) sum += square(shift / side) + square((one - other) / side) / 4;
    return 1 - Math.exp(-Math.sqrt(sum / 2));
  },
  mgiou: (g) => {
    const part = (i, c) => (Math.min(g.p[i + 2], g.q[i + 2]) - Math.max(g.p[i], g.q[i])) / c;
    return (1 - (part(0, g.cw) + part(1, g.ch)) / 2) / 2;
  },
  sdiou: (g, s) => {
    const b = Math.min((s.delta * g.w2 * g.h2) / 81, s.delta);
    return (1 - s.delta + b) * (1 - g.iou + aspect(g, g.iou)) + ((1 + s.delta - b) * g.r2) / g.c2;
  },
};
// Modifiers, in front of CIoU.
const MODIFIER = {
  inner: (g, s, a, b) => {
    const scaled = ([x, y, w, h]) => [x, y, s.ratio * w, s.ratio * h];
    const inner = geometry(scaled(a), scaled(b)).iou;
    return added("ciou", g, s) + g.iou - inner;
  },
  focaler: (g, s) => added("ciou", g, s) + g.iou - clamp((g.iou - s.d) / (s.u - s.d), 0, 1),
  alpha: (g, s) =>
    PENALTIES.ciou(g, g.iou, s).reduce((sum, x) => sum + clamp(x, 0, 1) ** s.power, 1 - g.iou ** s.power),
  focal: (g, s) => g.iou ** s.iou_gamma * added("ciou", g, s),
  wise: (g, s) => focus((1 - g.iou) / MEAN_LOSS, s) * added("ciou", g, s),
};

const STEP = 1e-4;
/** Value and derivative by the logit of a class loss. */
function classPoint(name, z, t, s) {
  const loss = CLASS[name];
  return [loss(z, t, s, z), (loss(z + STEP, t, s, z) - loss(z - STEP, t, s, z)) / (2 * STEP)];
}
/** Value of a box loss: a box of the object's size, moved and scaled in units of the object's sides. */
function boxPoint(name, moved, scaled, s) {
  const w = s.object || OBJECT;
  const h = (w * 2) / 3;
  const b = [0, 0, w, h];
  const a = [moved[0] * w, moved[1] * h, scaled[0] * w, scaled[1] * h];
  return (BOX[name] || MODIFIER[name.replace(/_$/, "")])(geometry(a, b), s, a, b);
}

/** The panels of a loss: heading, range of x, label, and the curves as functions of x. */
function panels(kind, name, s) {
  if (kind === "cls") {
    const logit = (p) => clamp(Math.log(p / (1 - p)), -6, 6);
    const curve = (which, i) => (p) => Math.abs(classPoint(which, logit(p), s.t, s)[i]);
    return [
      { title: "loss", x: [0, 1], label: "probability p", curves: [curve("bce", 0), curve(name, 0)] },
      { title: "gradient |∂L/∂z|", x: [0, 1], label: "probability p", curves: [curve("bce", 1), curve(name, 1)] },
    ];
  }
  const reference = kind === "modifier" ? "ciou" : "iou";
  const shown = kind === "modifier" ? `${name}_` : name;
  const moved = (which) => (x) => boxPoint(which, [x, x], [1, 1], s);
  const scaled = (which) => (x) => boxPoint(which, [0, 0], [2 ** x, 1], s);
  return [
    { title: "loss of a shifted box", x: [0, 1.5], label: "shift / sides", curves: [reference, shown].map(moved) },
    { title: "loss by its width", x: [-2, 2], label: "log₂ width / w", curves: [reference, shown].map(scaled) },
  ];
}

// --- the page --------------------------------------------------------------------------------------------------------

function element(name, attributes, ...children) {
  const svg = ["svg", "path", "text", "line"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function chart({ title, x: [low, high], label, curves }) {
  const [width, height, left, top, right, bottom] = [320, 220, 34, 24, 8, 34];
  const xs = Array.from({ length: 161 }, (_, i) => low + ((high - low) * i) / 160);
  const ys = curves.map((curve) => xs.map(curve));
  const largest = Math.max(...ys[1], Math.min(Math.max(...ys[0]), 4 * Math.max(...ys[1])), 1e-3);
  const unit = 10 ** Math.floor(Math.log10(largest));
  const tick = unit * [0.25, 0.5, 1, 2, 5].find((each) => largest / (each * unit) <= 5);
  const at = (x, y) => [
    left + ((x - low) / (high - low)) * (width - left - right),
    height - bottom - (y / (1.04 * largest)) * (height - top - bottom),
  ];
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  svg.append(element("text", { x: left, y: 14 }, title), element("text", { x: width / 2, y: height - 4, "text-anchor": "middle" }, label));
  for (let y = 0; y <= 1.04 * largest; y += tick) {
    const [, at_y] = at(low, y);
    svg.append(element("line", { class: "grid", x1: left, x2: width - right, y1: at_y, y2: at_y }));
    svg.append(element("text", { x: left - 4, y: at_y + 4, "text-anchor": "end" }, String(Number(y.toPrecision(3)))));
  }
  for (let i = 0; i <= 4; i++) {
    const value = Math.round((low + ((high - low) * i) / 4) * 100) / 100;
    svg.append(element("text", { x: at(low + ((high - low) * i) / 4, 0)[0], y: height - bottom + 14, "text-anchor": "middle" }, String(value)));
  }
  ys.forEach((values, i) => {
    const points = values.map((y, j) => at(xs[j], Math.min(y, 1.04 * largest)).map((v) => v.toFixed(1)).join(" "));
    svg.append(element("path", { class: i ? "own" : "reference", d: `M${points.join("L")}` }));
  });
  return svg;
}

function build(place) {
  const { loss, kind } = place.dataset;
  const sliders = JSON.parse(place.dataset.sliders);
  const state = Object.fromEntries(sliders.map(({ name, value }) => [name, value]));
  const reference = kind === "cls" ? "bce" : kind === "modifier" ? "ciou" : "iou";
  const shown = kind === "modifier" ? `${loss}_ciou` : loss;
  const legend = element("p", { class: "legend" }, element("i", { class: "reference" }), reference, element("i", { class: "own" }), shown);
  const drawing = element("div", { class: "charts" });
  const controls = element("div", { class: "controls" });
  const draw = () => drawing.replaceChildren(...panels(kind, loss, state).map(chart));
  for (const { name, label, value, low, high, step } of sliders) {
    const binary = typeof value === "boolean";
    const input = element("input", binary ? { type: "checkbox" } : { type: "range", min: low, max: high, step, value });
    const output = element("output", {}, String(value));
    if (binary) input.checked = value;
    input.addEventListener("input", () => {
      state[name] = binary ? input.checked : Number(input.value);
      output.textContent = String(state[name]);
      draw();
    });
    controls.append(element("label", {}, element("span", {}, label), input, output));
  }
  place.replaceChildren(legend, drawing, controls);
  draw();
}

if (typeof document !== "undefined") {
  const start = () => document.querySelectorAll(".curves").forEach(build);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
} else {
  module.exports = { CLASS, BOX, MODIFIER, classPoint, boxPoint };
}
