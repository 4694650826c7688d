
// Looking through images. Any element with data-open (JSON) opens the list: truth and predicted (class indices), kind,
// low and high (confidence in percent), slices (dimension -> value, or {not: values}), total (images that the figure
// counts), row (opens that image at once).
const browser = document.getElementById("images");
const saveFile = (name, text) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/csv;charset=utf-8"}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};
// Like the CSV files beside the page: a byte order mark, and an apostrophe before text that a spreadsheet would run.
const csvField = (value) => {
  const text = typeof value === "string" && /^'*[=+\-@\t\r]/.test(value) ? "'" + value : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const csvText = (rows) => "\ufeff" + rows.map((row) => row.map(csvField).join(",") + "\r\n").join("");
const Images = browser && (() => {
  const STEP = 48;  // cards that are added at a time
  const by = (id) => document.getElementById(id);
  const filter = by("images-filter"), fields = filter.elements, grid = by("images-grid"), viewer = by("viewer");
  const pictures = JSON.parse(by("images-pictures").textContent);
  for (const image of document.querySelectorAll("[data-open] > img")) {
    const row = JSON.parse(image.parentElement.dataset.open).row;
    if (row !== undefined) pictures[row] = image.src;
  }
  let data = null, unpacking = null, found = [], place = 0, shown = 0, expected = null, slices = {};

  const unpack = () => unpacking ??= unpackOnce();
  const unpackOnce = async () => {
    data = await unpackJson("images-data");
    data.true = data.true.map((value, row) => value ?? data.confidence[row]);
    const classes = data.labels.map((label, index) => [visibleText(label), index]);
    classes.sort((a, b) => a[0].localeCompare(b[0], undefined, {numeric: true}));
    for (const select of [fields.truth, fields.predicted, by("review-label")]) {
      for (const [label, index] of classes) select.add(new Option(label, index));
    }
  };
  const nameOf = (row) => data.folders[data.folder[row]] + data.file[row];
  const percentOf = (value) => percent(Math.fround(value));
  const truthOf = (row) => visibleText(data.labels[data.truth[row]]) + (data.true[row] < 0 ? "" : " " + percentOf(data.true[row]));
  const wrong = (row) => data.truth[row] !== data.predicted[row];

  const addressOf = (row) => fileAddress(browser.dataset.root, nameOf(row));

  // For each wanted slice, the numbers of its images, and which of them fit.
  const sliced = () => Object.entries(slices).map(([dimension, wanted]) => {
    const {values, rows} = data.slices[dimension] || {values: [], rows: []};
    const fits = values.map((value) => wanted.not ? !wanted.not.includes(value) : value === wanted);
    return (row) => rows[row] >= 0 && fits[rows[row]];
  });
  const sliceText = () => Object.entries(slices).map(([dimension, wanted]) =>
    visibleText(`${dimension}: ${wanted.not ? "others" : wanted || "(none)"}`)).join(", ");

  const select = () => {
    const parts = sliced();
    const text = fields.text.value.trim().toLocaleLowerCase(), kind = fields.kind.value;
    // Compare as 32-bit numbers, because the probabilities are 32-bit.
    const low = Math.fround(fields.low.value / 100), high = fields.high.value === "" ? Infinity : Math.fround(fields.high.value / 100);
    found = [];
    for (let row = 0; row < data.file.length; row++) {
      if (fields.truth.value !== "" && data.truth[row] !== Number(fields.truth.value)) continue;
      if (fields.predicted.value !== "" && data.predicted[row] !== Number(fields.predicted.value)) continue;
      if (kind === "wrong" && !wrong(row) || kind === "right" && wrong(row) || kind === "suspected" && !data.suspected[row]) continue;
      const confidence = Math.fround(data.confidence[row]);
      if (confidence < low || confidence > high) continue;
      if (!parts.every((fits) => fits(row))) continue;
      if (text && !nameOf(row).toLocaleLowerCase().includes(text)) continue;
      found.push(row);
    }
    const keys = {sure: (row) => -data.confidence[row], unsure: (row) => data.confidence[row]};
    const key = keys[fields.order.value];
    found.sort((a, b) => key ? key(a) - key(b) || a - b : nameOf(a).localeCompare(nameOf(b), undefined, {numeric: true}));
  };

  const card = (row, index) => {
    const item = document.createElement("li"), figure = document.createElement("figure");
    const button = document.createElement("button"), caption = document.createElement("figcaption");
    const line = (kind, text) => {
      const part = document.createElement("div");
      part.className = kind;
      part.textContent = text;
      caption.append(part);
    };
    const truth = visibleText(data.labels[data.truth[row]]), predicted = visibleText(data.labels[data.predicted[row]]);
    button.type = "button";
    button.className = "picture";
    button.addEventListener("click", () => look(index));
    const source = pictures[row] || addressOf(row);
    const without = () => {
      button.classList.add("none");
      button.textContent = "no picture on this page";
    };
    if (source) {
      const image = new Image();
      image.loading = "lazy";
      image.decoding = "async";
      image.alt = `${truth} predicted as ${predicted}`;
      image.addEventListener("error", without);
      image.src = source;
      button.append(image);
    } else without();
    line("says", `${predicted} ${percentOf(data.confidence[row])}`);
    line("", wrong(row) ? `labelled ${truthOf(row)}` : "right");
    line("file", "");
    showPath(caption.lastChild, nameOf(row));
    figure.append(button, caption);
    item.append(figure);
    return item;
  };
  const more = () => {
    const next = found.slice(shown, shown + STEP);
    grid.append(...next.map((row, index) => card(row, shown + index)));
    shown += next.length;
    by("images-more").hidden = shown >= found.length;
  };
  const chosen = (select) => select.value === "" ? "" : select.selectedOptions[0].text;
  const list = () => {
    select();
    const [truth, predicted, kind] = [fields.truth, fields.predicted, fields.kind].map(chosen);
    const classes = predicted ? `${truth || "Images"} predicted as ${predicted}` : truth;
    const what = [sliceText(), classes + (kind && classes ? `: ${kind}` : kind)].filter(Boolean).join("; ");
    by("images-title").textContent = what === kind && kind ? kind[0].toUpperCase() + kind.slice(1) : what || "Images";
    by("images-slice").hidden = !sliceText();
    by("images-slice").textContent = `Clear ${sliceText()}`;
    grid.replaceChildren();
    shown = 0;
    more();
    const on = `${grouped(found.length)} image${found.length === 1 ? "" : "s"}`, few = found.length === 1 ? "is" : "are";
    const rest = "outcomes.parquet has all.";
    by("images-count").textContent = expected !== null && expected > found.length
      ? `${grouped(found.length)} of ${grouped(expected)} images ${few} on this page; ${rest}`
      : browser.dataset.all === "1" ? `${on}.` : `${on} here; this page has ${grouped(data.file.length)} of ${grouped(Number(browser.dataset.total))} images, ${rest}`;
  };

  // One image, as large as the window allows: the file itself where this machine has it, else the small picture.
  const look = (index) => {
    if (!found.length) return;
    place = Math.min(Math.max(index, 0), found.length - 1);
    const row = found[place], image = by("viewer-image"), missing = by("viewer-missing");
    by("images-list").hidden = true;
    viewer.hidden = false;
    const small = pictures[row], file = addressOf(row);
    const note = (text) => {
      missing.textContent = text;
      missing.hidden = !text;
    };
    image.onerror = () => {
      if (small && image.src !== small) {
        image.src = small;
        note("The file is not on this machine: this is the small picture of the page.");
      } else {
        image.hidden = true;
        note("This page has no picture of this image, and its file cannot be shown.");
      }
    };
    image.hidden = !(file || small);
    note(file ? "" : small ? "This is the small picture of the page." : "This page has no picture of this image.");
    if (file || small) image.src = file || small;
    image.alt = visibleText(nameOf(row));
    by("viewer-place").textContent = `${grouped(place + 1)} of ${grouped(found.length)}`;
    showPath(by("viewer-name"), nameOf(row));
    by("viewer-truth").textContent = truthOf(row);
    const choices = [data.predicted[row], 0, ...data.choices[row]];
    const known = {[data.truth[row]]: data.true[row], [data.predicted[row]]: data.confidence[row]};  // more exact
    const body = by("viewer-choices").tBodies[0];
    body.replaceChildren();
    for (let at = 0; at < choices.length; at += 2) {
      const line = body.insertRow();
      const [label, probability] = [line.insertCell(), line.insertCell()];
      label.textContent = visibleText(data.labels[choices[at]]);
      if (choices[at] === data.truth[row]) label.className = "truth";
      probability.className = "number";
      const exact = known[choices[at]] ?? -1;
      probability.textContent = exact >= 0 ? percentOf(exact) : percent(choices[at + 1] / 1000 || 1e-9);
    }
    by("review-label").value = String(data.predicted[row]);
    if (!viewer.contains(document.activeElement)) viewer.focus();
    browser.dispatchEvent(new CustomEvent("look"));
  };
  const back = () => {
    viewer.hidden = true;
    by("images-list").hidden = false;
    while (shown <= place && shown < found.length) more();
    const button = grid.children[place]?.querySelector("button");
    if (button) button.focus();
  };
  const step = (by_) => { if (!viewer.hidden) look(place + by_); };
  const goTo = (name) => {
    const index = found.findIndex((row) => nameOf(row) === name);
    if (index >= 0) look(index);
  };

  const open = async (wanted) => {
    await unpack();
    filter.reset();
    for (const name of ["truth", "predicted", "kind", "low", "high", "order"]) {
      if (wanted[name] !== undefined) fields[name].value = String(wanted[name]);
    }
    expected = wanted.total ?? null;
    slices = wanted.slices ?? {};
    viewer.hidden = true;
    by("images-list").hidden = false;
    if (!browser.open) {
      browser.showModal();
      history.pushState("images", "");  // so that the Back button closes the dialog and does not leave the page
    }
    list();
    if (wanted.row !== undefined) look(Math.max(found.indexOf(wanted.row), 0));
    else if (wanted.look) look(0);
  };

  filter.addEventListener("input", () => {
    expected = null;
    list();
  });
  filter.addEventListener("submit", (event) => event.preventDefault());
  by("images-slice").addEventListener("click", () => {
    slices = {};
    expected = null;
    list();
  });
  by("images-more").addEventListener("click", more);
  by("viewer-back").addEventListener("click", back);
  by("viewer-previous").addEventListener("click", () => step(-1));
  by("viewer-next").addEventListener("click", () => step(1));
  for (const button of browser.querySelectorAll("[data-close]")) button.addEventListener("click", () => browser.close());
  browser.addEventListener("close", () => { if (history.state === "images") history.back(); });
  addEventListener("popstate", () => {
    if (!browser.open || history.state === "images") return;
    if (viewer.hidden) return browser.close();
    back();
    history.pushState("images", "");
  });
  browser.addEventListener("cancel", (event) => {
    if (viewer.hidden) return;
    event.preventDefault();
    back();
  });
  browser.addEventListener("keydown", (event) => {
    if (viewer.hidden || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    if (event.key === "Escape") back();
    else if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "Home") look(0);
    else if (event.key === "End") look(found.length - 1);
    else return;
    event.preventDefault();
  });
  by("images-copy").addEventListener("click", async () => {
    const text = found.map(nameOf).join("\n");
    try {
      await navigator.clipboard.writeText(text);
      by("images-count").textContent = `${grouped(found.length)} names copied.`;
    } catch {
      saveFile("images.txt", text + "\n");
    }
  });
  by("images-csv").addEventListener("click", () => {
    const rows = found.map((row) => [
      nameOf(row), data.labels[data.truth[row]], data.labels[data.predicted[row]],
      data.confidence[row], data.true[row] < 0 ? "" : data.true[row],
    ]);
    saveFile("images.csv", csvText([["image", "true_label", "predicted_label", "probability", "true_probability"], ...rows]));
  });
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-open]");
    if (opener) open(JSON.parse(opener.dataset.open));
  });
  document.addEventListener("keydown", (event) => {
    const opener = event.target.closest("g[data-open]");  // a button does this by itself
    if (opener && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      open(JSON.parse(opener.dataset.open));
    }
  });
  return {open, step, goTo, percentOf, load: unpack, data: () => data, wrong, source: (row) => pictures[row] || addressOf(row), nameOf, labelOf: (row) => data.labels[data.truth[row]], labels: () => data.labels, current: () => found[place], viewing: () => !viewer.hidden};
})();
