
// The maps of a trend: some images of the last nights.
for (const box of document.querySelectorAll("[data-night-map]")) {
  const prefix = box.dataset.nightMap;
  const map = JSON.parse(document.getElementById(`${prefix}-data`).textContent);
  const last = () => map.nights.length - 1;
  const groups = {
    night: {
      title: "night", key: (point) => map.night[point],
      colour: (key) => {  // the earlier, the nearer to the background
        if (key === last()) return mapStyle("--bad");
        const age = 1 - key / Math.max(last() - 1, 1);
        return `hsl(215 65% ${mapDark.matches ? 65 - 35 * age : 40 + 40 * age}%)`;
      },
      legend: () => map.nights.map((night, number) => [night, groups.night.colour(number)]),
    },
    predicted: {
      title: "predicted class", key: (point) => map.predicted[point], colour: mapColour,
      legend: () => mapLabels(new Set(map.predicted), map.labels),
    },
    confidence: {title: "confidence", key: (point) => map.confidence[point], colour: (key) => mapScale(key / 1000), legend: mapShares},
  };
  if (map.known) {
    groups.known = {title: "known to the model", key: (point) => map.known[point], colour: (key) => mapScale(key / 100), legend: mapShares};
  }
  drawMap(prefix, {
    map, groups, load: () => {},
    shown: (point, form) => !form.elements.last.checked || map.night[point] === last(),
    above: (point) => map.night[point] === last(),
    picture: (point) => map.pictures[point] || fileAddress(map.roots[map.night[point]], map.image[point]),
    text: (point) => {
      const known = map.known ? `, known ${map.known[point]}%` : "";
      const answer = `${visibleText(map.labels[map.predicted[point]])} ${percent(Math.min(map.confidence[point] / 1000, 0.9999))}${known}`;
      return `${map.nights[map.night[point]]}: ${answer}: ${visibleText(map.image[point])}`;
    },
    open: (point) => {
      const address = fileAddress(map.roots[map.night[point]], map.image[point]);
      if (address) window.open(address, "_blank", "noopener");
    },
  });
}
