
// The map: a point for each image at the place of its features, drawn when it comes into view.
const mapData = document.getElementById("map-data");
if (mapData) {
  const canvas = document.getElementById("map-canvas"), form = document.getElementById("map-form");
  const readout = document.getElementById("map-readout"), legend = document.getElementById("map-legend");
  const MARGIN = 14, PALETTE = ["#4477aa", "#ee7733", "#228833", "#cc3377", "#33aabb", "#bb9900", "#7755bb", "#aa6644"];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let map = null, chosen = -1, width = 0, height = 0;

  const colourOf = (index) => index < PALETTE.length ? PALETTE[index] : `hsl(${index * 137.5 % 360} 55% 50%)`;
  const scale = (share) => `hsl(${215 - 190 * (1 - share)} 75% ${dark.matches ? 62 : 45}%)`;
  const styles = () => getComputedStyle(document.documentElement);
  const shown = (point) => !form.elements.mistakes.checked || Images.wrong(map.row[point]);
  const colours = {
    answer: (row) => styles().getPropertyValue(Images.wrong(row) ? "--bad" : "--accent"),
    truth: (row) => colourOf(Images.data().truth[row]),
    predicted: (row) => colourOf(Images.data().predicted[row]),
    confidence: (row) => scale(Images.data().confidence[row] / 10000),
    known: (row, point) => scale(map.known[point] / 100),
  };
  const keys = () => {
    const kind = form.elements.colour.value;
    if (kind === "answer") return [["right", styles().getPropertyValue("--accent")], ["wrong", styles().getPropertyValue("--bad")]];
    if (kind === "confidence" || kind === "known") return [["0%", scale(0)], ["50%", scale(.5)], ["100%", scale(1)]];
    const labels = Images.labels(), there = new Set(map.row.map((row) => Images.data()[kind][row]));
    const few = [...there].sort((a, b) => a - b).slice(0, 12);
    const rest = there.size - few.length;
    return [...few.map((index) => [visibleText(labels[index]), colourOf(index)]), ...(rest ? [[`and ${rest} more`, "transparent"]] : [])];
  };
  const at = (point) => [MARGIN + map.x[point] / 1000 * (width - 2 * MARGIN), MARGIN + map.y[point] / 1000 * (height - 2 * MARGIN)];
  const draw = () => {
    if (!map) return;
    const ratio = devicePixelRatio || 1, pen = canvas.getContext("2d"), kind = form.elements.colour.value;
    width = canvas.clientWidth;
    height = Math.round(Math.min(width * .7, 560));
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.height = `${height}px`;
    pen.scale(ratio, ratio);
    const size = map.row.length > 5000 ? 1.6 : map.row.length > 1000 ? 2.4 : 3.6;
    const cache = new Map();
    const colour = (row, point) => {
      const key = kind === "answer" ? Images.wrong(row) : kind === "known" ? map.known[point] : Images.data()[kind][row];
      if (!cache.has(key)) cache.set(key, colours[kind](row, point));
      return cache.get(key);
    };
    pen.globalAlpha = .8;
    const order = [...map.row.keys()].sort((a, b) => Images.wrong(map.row[a]) - Images.wrong(map.row[b]));
    for (const point of order) {
      if (!shown(point)) continue;
      const [x, y] = at(point);
      pen.fillStyle = colour(map.row[point], point);
      pen.beginPath();
      pen.arc(x, y, Images.wrong(map.row[point]) ? size * 1.25 : size, 0, 7);
      pen.fill();
    }
    if (chosen >= 0) {
      pen.globalAlpha = 1;
      pen.strokeStyle = styles().getPropertyValue("--text");
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(...at(chosen), size + 4, 0, 7);
      pen.stroke();
    }
    legend.replaceChildren(...keys().map(([text, key]) => {
      const item = document.createElement("li"), box = document.createElement("i");
      box.style.background = key;
      item.append(box, text);
      return item;
    }));
  };
  const nearest = (event) => {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    let best = -1, least = 20 * 20;
    for (let point = 0; point < map.row.length; point++) {
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
    const row = map.row[point], data = Images.data(), source = Images.source(row), text = document.createElement("span");
    if (source) {
      const picture = new Image();
      picture.alt = "";
      picture.addEventListener("error", () => picture.remove());
      picture.src = source;
      readout.append(picture);
    }
    const truth = visibleText(Images.labelOf(row)), predicted = visibleText(Images.labels()[data.predicted[row]]);
    const answer = Images.wrong(row) ? `${truth} predicted as ${predicted}` : truth;
    const known = map.known ? `, known ${map.known[point]}%` : "";
    text.textContent = `${answer}, ${(data.confidence[row] / 100).toFixed(1)}%${known}: ${visibleText(Images.nameOf(row))}`;
    readout.append(text);
  };
  const start = async () => {
    await Images.load();
    const bytes = Uint8Array.from(atob(JSON.parse(mapData.textContent)), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    map = JSON.parse(await new Response(stream).text());
    if (map.known) form.elements.colour.add(new Option("known to the model", "known"));
    draw();
    canvas.dataset.ready = "1";
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    chosen = -1;
    draw();
  });
  canvas.addEventListener("pointermove", (event) => { if (map) choose(nearest(event)); });
  canvas.addEventListener("click", (event) => {
    const point = map ? nearest(event) : -1;
    if (point >= 0) Images.open({row: map.row[point]});
  });
  window.addEventListener("resize", draw);
  dark.addEventListener("change", draw);
  const watch = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watch.disconnect();
    start();
  }, {rootMargin: "400px"});
  watch.observe(canvas);
}
