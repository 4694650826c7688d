// The confusion matrix of many classes: a canvas with mouse, touch and keyboard controls.
const holder = document.getElementById("confusion-data");
if (holder) {
  const data = JSON.parse(holder.textContent);
  const canvas = document.getElementById("confusion-canvas");
  const readout = document.getElementById("confusion-readout");
  const select = document.getElementById("confusion-order");
  const count = data.labels.length;
  const cells = new Map();
  for (let i = 0; i < data.cells.length; i += 3) cells.set(data.cells[i] * count + data.cells[i + 1], data.cells[i + 2]);
  const context = canvas.getContext("2d");
  const view = {order: data.orders.similar, place: [], zoom: 1, x: 0, y: 0, cursor: null};
  const hint = readout.textContent;
  let size = 0, gutter = 0, pitch = 1, frame = 0;  // CSS pixels: side of the matrix, room for labels, a cell

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const shorten = (text, room) => {
    if (context.measureText(text).width <= room) return text;
    while (text.length > 1 && context.measureText(text + "…").width > room) text = text.slice(0, -1);
    return text + "…";
  };
  const reorder = (order) => {
    view.order = order;
    order.forEach((index, place) => { view.place[index] = place; });
  };
  const span = () => count / view.zoom;

  const draw = () => {
    frame = 0;
    const width = canvas.clientWidth;
    gutter = width >= 560 ? Math.min(170, width * 0.24) : 0;
    size = width - gutter;
    const ratio = window.devicePixelRatio || 1;
    canvas.height = Math.round((size + gutter) * ratio);
    canvas.width = Math.round(width * ratio);
    canvas.style.height = size + gutter + "px";
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const style = getComputedStyle(document.documentElement);
    const hit = style.getPropertyValue("--hit"), miss = style.getPropertyValue("--miss");
    const ink = style.getPropertyValue("--text"), paper = style.getPropertyValue("--paper");
    context.clearRect(0, 0, width, size + gutter);
    view.x = clamp(view.x, 0, count - span());
    view.y = clamp(view.y, 0, count - span());
    pitch = size / span();
    const box = Math.max(pitch > 6 ? pitch - 1 : pitch, 1.3);
    context.save();
    context.beginPath();
    context.rect(gutter, gutter, size, size);
    context.clip();
    context.translate(gutter, gutter);
    if (view.cursor) {
      context.fillStyle = style.getPropertyValue("--panel");
      context.fillRect(0, (view.cursor[0] - view.y) * pitch, size, Math.max(box, 2));
      context.fillRect((view.cursor[1] - view.x) * pitch, 0, Math.max(box, 2), size);
    }
    for (const [key, images] of cells) {
      const truth = Math.floor(key / count), predicted = key % count;
      const row = view.place[truth] - view.y, column = view.place[predicted] - view.x;
      if (row < -1 || column < -1 || row > span() || column > span()) continue;
      const share = images / data.support[truth];
      const strength = Math.max(pitch < 4 ? 0.4 : 0.18, Math.sqrt(share));
      context.fillStyle = `rgba(${truth === predicted ? hit : miss}, ${strength})`;
      context.fillRect(column * pitch, row * pitch, box, box);
      if (pitch >= 30) {
        context.fillStyle = strength > 0.6 ? paper : ink;
        context.font = "11px system-ui, sans-serif";
        context.textAlign = "center";
        context.textBaseline = "middle";
        context.fillText(images, (column + 0.5) * pitch, (row + 0.5) * pitch);
      }
    }
    if (view.cursor) {
      context.strokeStyle = ink;
      context.lineWidth = 2;
      const frameSize = Math.max(box, 7);
      context.strokeRect((view.cursor[1] - view.x) * pitch - 1, (view.cursor[0] - view.y) * pitch - 1, frameSize + 2, frameSize + 2);
    }
    context.restore();
    if (gutter) {
      context.fillStyle = ink;
      context.font = "11px system-ui, sans-serif";
      context.textBaseline = "middle";
      label(view.y, gutter - 14, (text, at) => {
        context.textAlign = "right";
        context.fillText(text, gutter - 8, gutter + at);
      });
      label(view.x, gutter - 12, (text, at) => {
        context.save();
        context.translate(gutter + at, gutter - 6);
        context.rotate(-Math.PI / 2);
        context.textAlign = "left";
        context.fillText(text, 0, 0);
        context.restore();
      });
    }
  };
  const label = (from, room, write) => {
    const step = Math.ceil(12 / pitch);
    for (let place = Math.ceil(from); place < count; place += step) {
      const at = (place - from + 0.5) * pitch;
      if (at > size - 5) break;
      if (at >= 5) write(shorten(data.labels[view.order[place]], room), at);
    }
  };
  const redraw = () => { frame = frame || requestAnimationFrame(draw); };

  const report = () => {
    if (!view.cursor) return;
    const truth = view.order[view.cursor[0]], predicted = view.order[view.cursor[1]];
    const images = cells.get(truth * count + predicted) || 0, of = data.support[truth];
    const share = of ? ` (${percent(images / of)})` : "";
    const numbers = `${grouped(images)} of ${grouped(of)} images${share}`;
    readout.textContent = truth === predicted
      ? `${data.labels[truth]}, right: ${numbers}`
      : `${data.labels[truth]}, predicted as ${data.labels[predicted]}: ${numbers}`;
  };
  const point = (event) => {
    const area = canvas.getBoundingClientRect();
    const column = Math.floor(view.x + (event.clientX - area.left - gutter) / pitch);
    const row = Math.floor(view.y + (event.clientY - area.top - gutter) / pitch);
    view.cursor = column >= 0 && row >= 0 && column < count && row < count ? [row, column] : view.cursor;
    report();
    redraw();
  };
  const zoomTo = (factor) => {
    const [row, column] = view.cursor || [view.y + span() / 2, view.x + span() / 2];
    view.zoom = clamp(view.zoom * factor, 1, Math.max(1, count / 8));
    view.x = column + 0.5 - span() / 2;
    view.y = row + 0.5 - span() / 2;
    const side = Math.round(span());
    if (!view.cursor) readout.textContent = view.zoom > 1 ? `${side} by ${side} of ${grouped(count)} classes.` : hint;
    redraw();
  };

  const look = () => {
    if (!view.cursor) return;
    const truth = view.order[view.cursor[0]], predicted = view.order[view.cursor[1]];
    const total = cells.get(truth * count + predicted);
    if (total) Images.open({truth, predicted, total});
  };

  // Zoom to the square of classes with the most errors in this order; each further press, to the next one.
  const SQUARE = Math.min(count, 24);
  let seen = [];
  const toErrors = () => {
    const sums = new Float64Array((count + 1) * (count + 1));
    for (const [key, images] of cells) {
      const truth = Math.floor(key / count), predicted = key % count;
      if (truth !== predicted) sums[(view.place[truth] + 1) * (count + 1) + view.place[predicted] + 1] = images;
    }
    for (let row = 1; row <= count; row++) {
      for (let column = 1; column <= count; column++) {
        const at = row * (count + 1) + column;
        sums[at] += sums[at - 1] + sums[at - count - 1] - sums[at - count - 2];
      }
    }
    let best = null, most = 0;
    for (let row = 0; row + SQUARE <= count; row++) {
      for (let column = 0; column + SQUARE <= count; column++) {
        const low = row * (count + 1) + column, high = (row + SQUARE) * (count + 1) + column;
        const errors = sums[high + SQUARE] - sums[high] - sums[low + SQUARE] + sums[low];
        const overlaps = seen.some(([y, x]) => Math.abs(y - row) < SQUARE && Math.abs(x - column) < SQUARE);
        if (errors > most && !overlaps) {
          best = [row, column];
          most = errors;
        }
      }
    }
    if (!best) {
      if (!seen.length) return;
      seen = [];
      return toErrors();
    }
    seen.push(best);
    view.cursor = null;
    [view.y, view.x] = best;
    view.zoom = count / SQUARE;
    readout.textContent = `${SQUARE} by ${SQUARE} classes with ${grouped(most)} errors. “Zoom to errors” shows the next ones.`;
    redraw();
  };

  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    held = [event.clientX, event.clientY, view.x, view.y];
    canvas.setPointerCapture(event.pointerId);
    point(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return point(event);
    view.x = held[2] - (event.clientX - held[0]) / pitch;
    view.y = held[3] - (event.clientY - held[1]) / pitch;
    redraw();
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(kind, (event) => {
      const dragged = held && Math.hypot(event.clientX - held[0], event.clientY - held[1]) > 4;
      if (held && !dragged && kind === "pointerup") look();
      held = null;
    });
  }
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== canvas) return;
    event.preventDefault();
    zoomTo(event.deltaY < 0 ? 1.25 : 0.8);
  }, {passive: false});
  canvas.addEventListener("keydown", (event) => {
    const moves = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
    if (event.key in moves) {
      const [row, column] = view.cursor || [Math.ceil(view.y), Math.ceil(view.x)];
      const [down, right] = view.cursor ? moves[event.key] : [0, 0];
      view.cursor = [clamp(row + down, 0, count - 1), clamp(column + right, 0, count - 1)];
      view.y = clamp(view.y, view.cursor[0] + 1 - span(), view.cursor[0]);
      view.x = clamp(view.x, view.cursor[1] + 1 - span(), view.cursor[1]);
      report();
      redraw();
    } else if (event.key === "+" || event.key === "=") zoomTo(1.5);
    else if (event.key === "-") zoomTo(1 / 1.5);
    else if (event.key === "Enter") look();
    else if (event.key === "0" || event.key === "Home") zoomTo(1e-6);
    else return;
    event.preventDefault();
  });
  document.getElementById("confusion-in").addEventListener("click", () => zoomTo(2));
  document.getElementById("confusion-out").addEventListener("click", () => zoomTo(0.5));
  document.getElementById("confusion-all").addEventListener("click", () => zoomTo(1e-6));
  document.getElementById("confusion-errors").addEventListener("click", toErrors);
  select.addEventListener("change", () => {
    seen = [];
    reorder(data.orders[select.value]);
    view.cursor = null;
    readout.textContent = hint;
    redraw();
  });
  const find = document.getElementById("confusion-find");
  for (const text of data.labels) {
    const option = document.createElement("option");
    option.value = text;
    document.getElementById("confusion-names").append(option);
  }
  find.addEventListener("change", () => {
    const wanted = find.value.trim().toLocaleLowerCase();
    const names = data.labels.map((text) => text.toLocaleLowerCase());
    const index = names.includes(wanted) ? names.indexOf(wanted) : names.findIndex((text) => text.includes(wanted));
    if (!wanted) return;
    if (index < 0) {
      readout.textContent = `No class is called “${find.value.trim()}”.`;
      return;
    }
    view.cursor = [view.place[index], view.place[index]];
    view.zoom = Math.max(view.zoom, count / 24);
    zoomTo(1);
    report();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  window.addEventListener("beforeprint", draw);
  new ResizeObserver(redraw).observe(canvas.parentElement);
  reorder(data.orders.similar);
  if (count > 100) toErrors();
  draw();
}
