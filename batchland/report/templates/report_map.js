
// The map of a report: the images that the page holds for looking through.
if (document.getElementById("map-data")) {
  const map = JSON.parse(document.getElementById("map-data").textContent);
  const column = (kind) => (point) => Images.data()[kind][map.row[point]];
  const wrong = (point) => map.wrong[point];
  const classes = (title, kind) => ({
    title, key: column(kind), colour: mapColour,
    legend: () => mapLabels(new Set(map.row.map((row) => Images.data()[kind][row])), Images.labels()),
  });
  const groups = {
    answer: {
      title: "right or wrong", key: wrong, colour: (key) => mapStyle(key ? "--bad" : "--accent"),
      legend: () => [["right", mapStyle("--accent")], ["wrong", mapStyle("--bad")]],
    },
    truth: classes("true class", "truth"),
    predicted: classes("predicted class", "predicted"),
    confidence: {title: "confidence", key: column("confidence"), colour: (key) => mapScale(key), legend: mapShares},
  };
  if (map.known) {
    groups.known = {title: "known to the model", key: (point) => map.known[point], colour: (key) => mapScale(key / 100), legend: mapShares};
  }
  drawMap("map", {
    map, groups, load: Images.load,
    shown: (point, form) => !form.elements.mistakes.checked || wrong(point),
    above: wrong,
    picture: (point) => Images.source(map.row[point]),
    text: (point) => {
      const row = map.row[point], data = Images.data();
      const truth = visibleText(Images.labelOf(row)), predicted = visibleText(Images.labels()[data.predicted[row]]);
      const answer = wrong(point) ? `${truth} predicted as ${predicted}` : truth;
      const known = map.known ? `, known ${map.known[point]}%` : "";
      return `${answer}, ${Images.percentOf(data.confidence[row])}${known}: ${visibleText(Images.nameOf(row))}`;
    },
    open: (point) => Images.open({row: map.row[point]}),
  });
}
