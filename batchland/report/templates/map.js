
// A map: a point for each image at the place of its features. The page that has it gives a source: map is {x, y} (0 to 1000);
// groups[kind] is {title, key(point), colour(key), legend()}, in the order of the menu; load() resolves when all of them can be
// used, the first one before; shown(point, form), above(point) (drawn last and larger), picture(point), text(point), open(point).
const mapPalette = ["#4477aa", "#ee7733", "#228833", "#cc3377", "#33aabb", "#bb9900", "#7755bb", "#aa6644"];
const mapDark = matchMedia("(prefers-color-scheme: dark)");
const mapColour = (index) => index < mapPalette.length ? mapPalette[index] : `hsl(${index * 137.5 % 360} 55% 50%)`;
const mapScale = (share) => `hsl(${215 - 190 * (1 - share)} 75% ${mapDark.matches ? 62 : 45}%)`;
const mapStyle = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
const mapShares = () => [["0%", mapScale(0)], ["50%", mapScale(.5)], ["100%", mapScale(1)]];
const mapLabels = (there, labels) => {
  const few = [...there].sort((a, b) => a - b).slice(0, 12), rest = there.size - few.length;
  return [...few.map((index) => [visibleText(labels[index]), mapColour(index)]), ...(rest ? [[`and ${rest} more`, "transparent"]] : [])];
};
const drawMap = (prefix, source) => {
  const by = (name) => document.getElementById(`${prefix}-${name}`);
  const canvas = by("canvas"), form = by("form"), readout = by("readout"), legend = by("legend");
  const MARGIN = 14;
  const map = source.map;
  let chosen = -1, width = 0, height = 0;

  const shown = (point) => source.shown(point, form);
  const at = (point) => [MARGIN + map.x[point] / 1000 * (width - 2 * MARGIN), MARGIN + map.y[point] / 1000 * (height - 2 * MARGIN)];
  const draw = () => {
    const ratio = devicePixelRatio || 1, pen = canvas.getContext("2d"), group = source.groups[form.elements.colour.value];
    width = canvas.clientWidth;
    height = Math.round(Math.min(width * .7, 560));
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.height = `${height}px`;
    pen.scale(ratio, ratio);
    const size = map.x.length > 5000 ? 1.6 : map.x.length > 1000 ? 2.4 : 3.6;
    const cache = new Map();
    const colour = (point) => {
      const key = group.key(point);
      if (!cache.has(key)) cache.set(key, group.colour(key));
      return cache.get(key);
    };
    pen.globalAlpha = .8;
    const order = [...map.x.keys()].sort((a, b) => source.above(a) - source.above(b));
    for (const point of order) {
      if (!shown(point)) continue;
      pen.fillStyle = colour(point);
      pen.beginPath();
      pen.arc(...at(point), source.above(point) ? size * 1.25 : size, 0, 7);
      pen.fill();
    }
    if (chosen >= 0) {
      pen.globalAlpha = 1;
      pen.strokeStyle = mapStyle("--text");
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(...at(chosen), size + 4, 0, 7);
      pen.stroke();
    }
    legend.replaceChildren(...group.legend().map(([text, key]) => {
      const item = document.createElement("li"), box = document.createElement("i");
      box.style.background = key;
      item.append(box, text);
      return item;
    }));
  };
  const nearest = (event) => {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    let best = -1, least = 20 * 20;
    for (let point = 0; point < map.x.length; point++) {
      if (!shown(point)) continue;
      const [left, top] = at(point), distance = (left - x) ** 2 + (top - y) ** 2;
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  };
  const choose = (point) => {
    if (point === chosen) return;
    chosen = point;
    draw();
    readout.replaceChildren();
    if (point < 0) {
      readout.textContent = "No image chosen.";
      return;
    }
    const address = source.picture(point), text = document.createElement("span");
    if (address) {
      const picture = new Image();
      picture.alt = "";
      picture.addEventListener("error", () => picture.remove());
      picture.src = address;
      readout.append(picture);
    }
    text.textContent = source.text(point);
    readout.append(text);
  };
  const start = async () => {
    const [first, ...others] = Object.entries(source.groups).map(([kind, group]) => new Option(group.title, kind));
    form.elements.colour.add(first);
    draw();
    await source.load();
    for (const option of others) form.elements.colour.add(option);
    canvas.dataset.ready = "1";
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    choose(-1);
    draw();
  });
  canvas.addEventListener("pointermove", (event) => { if (canvas.dataset.ready) choose(nearest(event)); });
  canvas.addEventListener("click", (event) => {
    const point = canvas.dataset.ready ? nearest(event) : -1;
    if (point >= 0) source.open(point);
  });
  window.addEventListener("resize", draw);
  mapDark.addEventListener("change", draw);
  start();
};
