
// Decisions about labels: keep, wrong, unsure. They stay in the browser's storage, by the fingerprint of the labels, and
// are saved as a CSV with the columns path, label, decision; see docs/analysts.md.
if (browser) {
  const TYPING = 1000;  // ms after a letter in which another one continues the search in a list, as browsers have it
  const key = `batchland corrections ${browser.dataset.labels}`;
  const right = document.getElementById("review-label"), said = document.getElementById("review-count");
  const save = document.getElementById("review-save"), back = document.getElementById("review-undo");
  let decisions = new Map(), typed = -TYPING;  // image -> [label, decision], in the order of the decisions
  try {
    const saved = JSON.parse(localStorage.getItem(key)) || [];
    decisions = new Map(Array.isArray(saved) ? saved : Object.entries(saved));
  } catch {}  // no storage: decisions last as long as the page
  const store = () => {
    try {
      localStorage.setItem(key, JSON.stringify([...decisions]));
    } catch {}
  };
  const say = (text) => {
    const made = decisions.size;
    said.textContent = `${text}${made ? `${grouped(made)} decision${made === 1 ? "" : "s"}` : "no decisions yet"}`;
  };
  const show = () => {
    const made = decisions.get(Images.nameOf(Images.current()));
    for (const button of browser.querySelectorAll("[data-decision]")) {
      button.setAttribute("aria-pressed", String(Boolean(made) && made[1] === button.dataset.decision));
    }
    if (made && made[1] === "wrong") right.value = String(Images.labels().indexOf(made[0]));
    save.disabled = back.disabled = !decisions.size;
    say("");
  };
  const decide = (decision) => {
    const row = Images.current(), name = Images.nameOf(row), present = Images.labelOf(row);
    const label = decision === "wrong" ? Images.labels()[Number(right.value)] : present;
    if (decision === "wrong" && label === present) {
      say(`${visibleText(label)} is the present label: choose the right one first, or keep it. `);
      return;
    }
    decisions.delete(name);
    decisions.set(name, [label, decision]);
    store();
    Images.step(1);
    say(`${visibleText(name)}: ${decision}${decision === "wrong" ? `, right is ${visibleText(label)}` : ""}. `);
  };
  const undo = () => {
    const last = [...decisions.keys()].at(-1);
    if (last === undefined) return;
    const [, decision] = decisions.get(last);
    decisions.delete(last);
    store();
    Images.goTo(last);
    show();
    say(`${visibleText(last)}: no longer ${decision}. `);
  };
  browser.addEventListener("look", show);
  for (const button of browser.querySelectorAll("[data-decision]")) {
    button.addEventListener("click", () => decide(button.dataset.decision));
  }
  back.addEventListener("click", undo);
  save.addEventListener("click", () => {
    const rows = [...decisions].map(([path, [label, decision]]) => [path, label, decision]);
    saveFile("corrections.csv", csvText([["path", "label", "decision"], ...rows]));
  });
  browser.addEventListener("keydown", (event) => {
    if (!Images.viewing() || event.ctrlKey || event.metaKey || event.altKey) return;
    const pressed = event.key.toLowerCase(), decision = {k: "keep", w: "wrong", u: "unsure"}[pressed];
    if (event.target === right) {  // here, letters also search: an opened list, or a search that goes on, gets them all
      const opened = CSS.supports("selector(:open)") && right.matches(":open");
      const searching = opened || event.timeStamp - typed < TYPING;
      if (event.key.length === 1 && (searching || !(decision || pressed === "z"))) typed = event.timeStamp;
      if (searching) return;
    }
    if (decision) decide(decision);
    else if (pressed === "z") undo();
    else return;
    event.preventDefault();
    if (event.target === right) document.getElementById("viewer").focus();
  });
}
