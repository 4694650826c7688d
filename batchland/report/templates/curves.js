
// Precision-recall and ROC curves: the mean of all classes, and one that is chosen.
const curvesData = document.getElementById("curves-data");
if (curvesData) {
  const curves = JSON.parse(curvesData.textContent), choice = document.getElementById("curves-class");
  const points = (frame, pairs) => {
    const {left, right, top, bottom} = frame.dataset, found = [];
    for (let at = 0; at < pairs.length; at += 2) {
      const x = Number(left) + pairs[at] / 1000 * (right - left), y = bottom - pairs[at + 1] / 1000 * (bottom - top);
      found.push(`${x.toFixed(1)},${y.toFixed(1)}`);
    }
    return found.join(" ");
  };
  const draw = () => {
    const curve = curves[choice.selectedIndex];
    for (const kind of ["pr", "roc"]) {
      const line = document.getElementById(`${kind}-line`), mean = document.getElementById(`${kind}-mean`);
      line.setAttribute("points", points(line.ownerSVGElement, curve[kind]));
      mean.setAttribute("points", choice.selectedIndex ? points(line.ownerSVGElement, curves[0][kind]) : "");
    }
    document.getElementById("curves-text").textContent = curve.text;
  };
  curves.forEach((curve, index) => choice.add(new Option(curve.label, index)));
  document.getElementById("curves-form").addEventListener("submit", (event) => event.preventDefault());
  choice.addEventListener("change", draw);
  draw();
}
