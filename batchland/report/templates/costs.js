
// The cost of a threshold: errors among the accepted answers, and looks of a human at the others.
const costsData = document.getElementById("costs-data");
if (costsData) {
  const data = JSON.parse(costsData.textContent), by = (id) => document.getElementById("costs-" + id);
  const form = by("form"), fields = form.elements, frame = by("plot").dataset;
  // Of each group, the images and the wrong ones at or above each threshold.
  const cumulated = (groups) => {
    const taken = new Array(data.steps + 2).fill(0), wrong = new Array(data.steps + 2).fill(0);
    for (const group of groups) {
      for (let at = 0; at < group.length; at += 3) {
        taken[group[at]] += group[at + 1];
        wrong[group[at]] += group[at + 1] - group[at + 2];
      }
    }
    for (let step = data.steps; step >= 0; step--) {
      taken[step] += taken[step + 1];
      wrong[step] += wrong[step + 1];
    }
    return {taken, wrong};
  };
  const all = cumulated(data.classes), single = data.classes.map((group) => cumulated([group]));
  if (fields.group) data.labels.forEach((label, index) => { if (single[index].taken[0]) fields.group.add(new Option(visibleText(label), index)); });
  const cost = (of, step) => of.wrong[step] * Number(fields.error.value) + (of.taken[0] - of.taken[step]) * Number(fields.look.value);
  const cheapest = (of) => {
    let best = 0;
    for (let step = 1; step <= data.steps + 1; step++) if (cost(of, step) < cost(of, best) - 1e-9) best = step;
    return best;  // above all steps: look at every image
  };
  const name = (step) => step > data.steps ? "look at all" : `${(100 * step / data.steps).toFixed(0)}%`;
  const share = (part, of) => of ? `${grouped(part)} (${percent(part / of)})` : "0";
  const chosen = () => fields.group && fields.group.value !== "" ? single[Number(fields.group.value)] : all;
  const show = () => {
    const valid = form.checkValidity();
    by("invalid").hidden = valid;
    for (const button of form.querySelectorAll("button")) button.disabled = !valid;
    if (!valid) {
      for (const cell of document.querySelectorAll("#costs td")) cell.textContent = "–";
      by("line").setAttribute("points", "");
      return;
    }
    const of = chosen(), step = Number(fields.threshold.value), total = of.taken[0], best = cheapest(of);
    by("threshold").textContent = name(step);
    by("accepted").textContent = share(of.taken[step], total);
    by("errors").textContent = share(of.wrong[step], of.taken[step]);
    by("looks").textContent = share(total - of.taken[step], total);
    by("cost").textContent = (cost(of, step) / total).toFixed(3);
    by("cheapest").textContent = `${name(best)}: ${(cost(of, best) / total).toFixed(3)}`;
    by("few").hidden = total >= Number(costsData.dataset.few);
    if (by("together")) {
      const sum = single.reduce((before, each) => before + cost(each, cheapest(each)), 0);
      by("together").textContent = (sum / all.taken[0]).toFixed(3);
    }
    const [left, right, top, bottom] = [frame.left, frame.right, frame.top, frame.bottom].map(Number);
    const costs = Array.from({length: data.steps + 1}, (_, at) => cost(of, at) / total), most = Math.max(...costs, 1e-9);
    const x = (at) => (left + at / data.steps * (right - left)).toFixed(1);
    const y = (value) => (bottom - value / most * (bottom - top)).toFixed(1);
    by("line").setAttribute("points", costs.map((value, at) => `${x(at)},${y(value)}`).join(" "));
    by("mark").setAttribute("cx", x(step));
    by("mark").setAttribute("cy", y(costs[step]));
    by("high").textContent = most.toPrecision(2);
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", show);
  by("best").addEventListener("click", () => {
    fields.threshold.value = Math.min(cheapest(chosen()), data.steps);
    show();
  });
  if (by("csv")) by("csv").addEventListener("click", () => {
    const rows = data.labels.map((label, index) => [label, single[index]]).filter(([, of]) => of.taken[0]);
    const lines = rows.map(([label, of]) => {
      const best = cheapest(of);
      return [label, best > data.steps ? "" : best / data.steps, of.taken[0], of.taken[best], of.wrong[best], cost(of, best)];
    });
    saveFile("thresholds.csv", csvText([["predicted_label", "threshold", "images", "accepted", "errors", "cost"], ...lines]));
  });
  show();
}
