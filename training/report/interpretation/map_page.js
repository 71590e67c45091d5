"use strict";
const map = document.getElementById("map"), tip = document.getElementById("tip");
const points = [...map.querySelectorAll(".point")];
const full = map.viewBox.baseVal.width;
let view = {x: 0, y: 0, size: full}, drag = null;

function show() {
  map.setAttribute("viewBox", `${view.x} ${view.y} ${view.size} ${view.size}`);
  const scale = Math.sqrt(view.size / full);  // points grow less than the distances between them
  for (const point of points) {
    point.style.scale = scale;
  }
}

function toMap(event) {
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(map.getScreenCTM().inverse());
  return {x: at.x, y: at.y};
}

function describe(point, x, y) {
  const genre = document.querySelector(`.tools button[data-genre="${point.dataset.genre}"]`).textContent;
  const name = document.createElement("b"), rest = document.createElement("span");
  name.textContent = point.dataset.label;
  rest.textContent = `${genre.replace(/ [\d,]+$/, "")} · ${point.dataset.id}`;
  tip.replaceChildren(name, rest);
  tip.hidden = false;
  const box = map.getBoundingClientRect();
  tip.style.left = `${Math.min(x - box.left + 14, box.width - tip.offsetWidth - 4)}px`;
  tip.style.top = `${Math.min(y - box.top + 14, box.height - tip.offsetHeight - 4)}px`;
}

map.addEventListener("pointerover", event => {
  if (event.target.classList.contains("point")) describe(event.target, event.clientX, event.clientY);
});
map.addEventListener("pointerout", () => { tip.hidden = true; });
map.addEventListener("wheel", event => {
  event.preventDefault();
  const at = toMap(event);
  const size = Math.min(full, Math.max(full / 40, view.size * (event.deltaY > 0 ? 1.25 : 0.8)));
  const share = size / view.size;
  view = {x: at.x - (at.x - view.x) * share, y: at.y - (at.y - view.y) * share, size};
  if (size === full) view = {x: 0, y: 0, size};
  show();
}, {passive: false});
map.addEventListener("pointerdown", event => { drag = toMap(event); });
map.addEventListener("pointermove", event => {
  if (!drag) return;
  const at = toMap(event);
  view = {...view, x: view.x + drag.x - at.x, y: view.y + drag.y - at.y};
  show();
});
window.addEventListener("pointerup", () => { drag = null; });
map.addEventListener("dblclick", () => { view = {x: 0, y: 0, size: full}; show(); });

for (const button of document.querySelectorAll(".tools button")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    for (const point of points) {
      if (point.dataset.genre === button.dataset.genre) point.classList.toggle("off", !shown);
    }
  });
}
document.getElementById("search").addEventListener("input", event => {
  const wanted = event.target.value.trim().toLowerCase();
  for (const point of points) {
    const text = `${point.dataset.label} ${point.dataset.id}`.toLowerCase();
    point.classList.toggle("dim", wanted !== "" && !text.includes(wanted));
  }
});
