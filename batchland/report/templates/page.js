"use strict";
document.documentElement.classList.remove("no-script");

const visibleText = (text) => text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu, (sign) => sign === "\u200d"
  ? sign : `[U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);

// Numbers as in the rest of the page: 1,500; shares that are not 0 or 1 are never shown as such.
const grouped = (number) => number.toLocaleString("en-US");
const percent = (share) => {
  const value = 100 * share;
  const text = (value % 1 === 0.25 ? value - 0.05 : value).toFixed(1) + "%";  // halves to even, as Python has it
  return text === "100.0%" && share < 1 ? ">99.9%" : text === "0.0%" && share > 0 ? "<0.1%" : text;
};

// A path may be broken after each slash, and each of its names has its own writing direction.
const showPath = (element, path) => {
  element.dir = "ltr";
  element.replaceChildren(...visibleText(path).split("/").flatMap((name, index) => {
    const part = document.createElement("bdi");
    part.textContent = name;
    return index ? ["/", document.createElement("wbr"), part] : [part];
  }));
};

// JSON that is compressed by zlib, as base64, in a script element.
const unpackJson = async (id) => {
  const bytes = Uint8Array.from(atob(JSON.parse(document.getElementById(id).textContent)), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
};

// Where the file of an image is: for a page that is opened as a file on a machine that has it, and never outside root.
const fileAddress = (root, name) => {
  if (!root || location.protocol !== "file:" || name.startsWith("/") || name.split("/").includes("..")) return null;
  const encode = (text) => encodeURIComponent(text).replace(/%5Cx([0-9a-f]{2})/g, "%$1");
  return "file://" + (root + "/" + name).split("/").map(encode).join("/");
};

// Tables: sort by the buttons in the header; a second press reverses the order. Empty cells stay last.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  const keyOf = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    const numeric = head.classList.contains("number") || "numeric" in head.dataset;
    head.addEventListener("click", () => {  // a click on the button arrives here, too
      const first = numeric && !("lowFirst" in head.dataset) ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const direction = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", direction);
      const sign = direction === "ascending" ? 1 : -1;
      rows.sort((a, b) => {
        const left = keyOf(a, column), right = keyOf(b, column);
        if (left === "" || right === "") return (left === "") - (right === "");
        return sign * (numeric ? left - right : left.localeCompare(right, undefined, {numeric: true}));
      });
      body.append(...rows);
      body.dispatchEvent(new Event("sorted"));
    });
  });
}

// Filters: a text and a selection, applied to the rows of one table. Of a long table, the first rows are shown until a
// button asks for all.
for (const form of document.querySelectorAll("form[data-filters]")) {
  const body = document.getElementById(form.dataset.filters).tBodies[0], all = form.querySelector("[data-all]");
  const text = form.querySelector("input"), choice = form.querySelector("select"), status = form.querySelector("output");
  let most = Number(form.dataset.first) || Infinity;
  const apply = () => {
    const wanted = text.value.trim().toLocaleLowerCase();
    const limit = choice && choice.value !== "" ? Number(choice.value) : null;
    let fitting = 0;
    for (const row of body.rows) {
      const value = row.dataset.accuracy;
      const fits = (limit === null || (value !== "" && Number(value) < limit))
        && row.cells[0].textContent.toLocaleLowerCase().includes(wanted);
      fitting += fits;
      row.hidden = !fits || fitting > most;
    }
    const shown = Math.min(fitting, most), rows = body.rows.length;
    status.textContent = shown === rows ? `${grouped(rows)} rows` : `${grouped(shown)} of ${grouped(rows)} rows`;
    if (all) {
      all.hidden = fitting <= most;
      all.textContent = `Show all ${grouped(fitting)}`;
    }
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  body.addEventListener("sorted", apply);
  if (all) all.addEventListener("click", () => {
    most = Infinity;
    apply();
  });
  apply();
}

// Print everything: open folded parts first.
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = Array.from(document.querySelectorAll("details:not([open])"));
  for (const details of folded) details.open = true;
  for (const button of document.querySelectorAll("[data-all]")) button.click();
});
window.addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
});
