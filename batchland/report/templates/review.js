
// Decisions about labels: keep, wrong, unsure. They stay in the browser's storage, by the fingerprint of the labels, and
// are saved as a CSV with the columns path, label, decision; see docs/analysts.md.
if (browser) {
  const key = `batchland corrections ${browser.dataset.labels}`;
  const right = document.getElementById("review-label"), said = document.getElementById("review-count");
  const save = document.getElementById("review-save"), back = document.getElementById("review-undo");
  let decisions = {};  // image -> [label, decision], in the order of the decisions
  try {
    decisions = JSON.parse(localStorage.getItem(key)) || {};
  } catch {}  // no storage: decisions last as long as the page
  const store = () => {
    try {
      localStorage.setItem(key, JSON.stringify(decisions));
    } catch {}
  };
  const show = () => {
    const row = Images.current(), made = decisions[Images.nameOf(row)];
    for (const button of browser.querySelectorAll("[data-decision]")) {
      button.setAttribute("aria-pressed", String(Boolean(made) && made[1] === button.dataset.decision));
    }
    if (made && made[1] === "wrong") right.value = String(Images.labels().indexOf(made[0]));
    const count = Object.keys(decisions).length;
    save.disabled = back.disabled = !count;
    said.textContent = count ? `${count} decision${count === 1 ? "" : "s"}` : "no decisions yet";
  };
  const decide = (decision) => {
    const row = Images.current(), name = Images.nameOf(row);
    delete decisions[name];
    decisions[name] = [decision === "wrong" ? Images.labels()[Number(right.value)] : Images.labelOf(row), decision];
    store();
    show();
    Images.step(1);
  };
  const undo = () => {
    const last = Object.keys(decisions).at(-1);
    if (last === undefined) return;
    delete decisions[last];
    store();
    show();
  };
  browser.addEventListener("look", show);
  for (const button of browser.querySelectorAll("[data-decision]")) {
    button.addEventListener("click", () => decide(button.dataset.decision));
  }
  back.addEventListener("click", undo);
  save.addEventListener("click", () => {
    const rows = Object.entries(decisions).map(([path, [label, decision]]) => [path, label, decision]);
    saveFile("corrections.csv", csvText([["path", "label", "decision"], ...rows]));
  });
  browser.addEventListener("keydown", (event) => {
    if (!Images.viewing() || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    const decision = {k: "keep", w: "wrong", u: "unsure"}[event.key.toLowerCase()];
    if (decision) decide(decision);
    else if (event.key.toLowerCase() === "z") undo();
    else return;
    event.preventDefault();
  });
}
