/* The error explorer of a page, and marks on labels. It asks for nothing from outside. As a module
   it runs once the whole page is there. */
(() => {
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const root = document.getElementById("explorer");
  const find = (selector) => root.querySelector(selector);
  const form = find(".filters");
  const found = find(".found");
  const tiles = find(".tiles");
  const viewer = find(".viewer");
  const bar = find(".marks");
  const { classes, ids, labels, runs } = data;
  const every = ids.map((_, index) => index);
  const BATCH = 48;

  // An element with its attributes and what is in it; text is never read as markup.
  function make(tag, attributes, ...inside) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== false && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...inside.filter((each) => each !== undefined));
    return element;
  }

  const percent = (thousandth) => `${Math.round(thousandth / 10)}\u00a0%`;
  const thousands = (number) => number.toLocaleString("en");
  const predicted = (index, run) => run.likeliest[index][0];
  const isRight = (index, run) => predicted(index, run) === labels[index];

  // -- sprites: an image is drawn from where it lies in the one of all -------------------------

  function load(sprite) {
    const image = new Image();
    image.src = sprite.uri;
    const ready = image.decode();
    const [width, height] = sprite.size;
    return function draw(index, name) {
      const style = width < 48 ? "image-rendering: pixelated" : undefined;
      const canvas = make("canvas", { width, height, style, role: name && "img", "aria-label": name });
      const x = (index % sprite.across) * sprite.pitch[0];
      const y = Math.floor(index / sprite.across) * sprite.pitch[1];
      const paint = () =>
        canvas.getContext("2d").drawImage(image, x, y, width, height, 0, 0, width, height);
      if (image.complete && image.naturalWidth) paint();
      else ready.then(paint);
      return canvas;
    };
  }

  const draw = load(data.sprite);
  const closer = data.closer && { ...data.closer, draw: load(data.closer.sprite) };

  // -- marks: what somebody says of labels, by image, kept for the next time -------------------

  const STORED = `tenfold corrections ${data.key}`;
  const marks = new Map();
  const SAYS = { keep: "the label is right", drop: "drop the image", unsure: "hard to say" };
  const SAID = { keep: "label kept", correct: "corrected", drop: "dropped", unsure: "unsure" };
  try {
    for (const [id, mark] of JSON.parse(localStorage.getItem(STORED) || "[]")) marks.set(id, mark);
  } catch {
    // Without storage marks last as long as the page.
  }

  // Sets a mark, or takes it away where it is there already.
  function mark(id, action, label) {
    const before = marks.get(id);
    if (before && before.action === action && before.label === label) marks.delete(id);
    else marks.set(id, { action, label });
    changed();
  }

  function changed() {
    try {
      localStorage.setItem(STORED, JSON.stringify([...marks]));
    } catch {
      // As above.
    }
    const counts = Object.keys(SAID)
      .map((action) => [action, [...marks.values()].filter((m) => m.action === action).length])
      .filter(([, count]) => count)
      .map(([action, count]) => `${count} ${SAID[action]}`);
    bar.hidden = !marks.size;
    bar.replaceChildren(
      make("span", {}, make("strong", {}, `${marks.size} marked`), `: ${counts.join(", ")}`),
      make("button", { type: "button", onclick: download }, "Download corrections.csv"),
      make("button", { type: "button", onclick: forget }, "Clear"),
    );
    for (const tile of tiles.querySelectorAll("button.tile")) badge(tile);
    for (const shown of document.querySelectorAll("[data-mark]")) choices(shown);
  }

  function forget() {
    if (!window.confirm(`Remove all ${marks.size} marks?`)) return;
    marks.clear();
    changed();
  }

  function download() {
    const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const rows = [...marks].map(([id, { action, label }]) => [id, label, action]);
    const text = [["id", "label", "action"], ...rows].map((row) => row.map(cell).join(",") + "\n");
    const href = URL.createObjectURL(new Blob(text, { type: "text/csv" }));
    make("a", { href, download: "corrections.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(href), 1000);
  }

  // What marks an image of which `label` is the class given, and `other` perhaps the true.
  function buttons(id, label, other) {
    const now = marks.get(id) || {};
    const button = (action, text, key, to = label) =>
      make(
        "button",
        {
          type: "button",
          "data-action": action,
          title: key ? `${SAYS[action]} (${key})` : `correct the label to ${to}`,
          "aria-pressed": String(now.action === action && now.label === to),
          onclick: () => mark(id, action, to),
        },
        text,
      );
    const select = make(
      "select",
      { "aria-label": "Correct to class", onchange: () => mark(id, "correct", select.value) },
      make("option", { value: "", disabled: "", selected: "" }, "Correct to …"),
      ...classes.filter((name) => name !== label).map((name) => make("option", {}, name)),
    );
    if (now.action === "correct") select.value = now.label;
    return [
      other === label ? "" : button("correct", `→ ${other}`, "", other),
      button("keep", "Keep", "k"),
      button("drop", "Drop", "d"),
      button("unsure", "Unsure", "u"),
      select,
    ].filter(Boolean);
  }

  // The marks under an image of the gallery of doubtful labels.
  function choices(shown) {
    const { mark: id, given, suggested } = shown.dataset;
    shown.hidden = false;
    const active = document.activeElement;
    const place = [...shown.children].indexOf(active);
    shown.replaceChildren(...buttons(id, given, suggested));
    if (place >= 0) shown.children[place].focus();
  }

  // -- the images that were found --------------------------------------------------------------

  const SHOW = {
    wrong: (index) => !runs.every((run) => isRight(index, run)),
    correct: (index) => runs.every((run) => isRight(index, run)),
    first: (index) => isRight(index, runs[0]) && !isRight(index, runs[1]),
    second: (index) => !isRight(index, runs[0]) && isRight(index, runs[1]),
    neither: (index) => !runs.some((run) => isRight(index, run)),
    all: () => true,
    marked: (index) => marks.has(ids[index]),
  };
  const sortKey = (value) => every.map(value);
  const SORT = {
    loss: sortKey((index) => -Math.max(...runs.map((run) => run.loss[index]))),
    confident: sortKey((index) => -Math.max(...runs.map((run) => run.shares[index][0]))),
    unsure: sortKey((index) => Math.min(...runs.map((run) => run.shares[index][0]))),
    quality: sortKey((index) => Math.min(...runs.map((run) => run.quality[index]))),
  };
  let list = [];
  let at = 0;

  const value = (name) => (form.elements[name] ? form.elements[name].value : "");

  // The least severity of the chosen corruption at which the prediction is wrong; 0 for never.
  function failsAt(index, corruption = value("corruption")) {
    return corruption === "" ? 0 : Number(data.fails[index].charAt(corruption));
  }

  function filter() {
    const [label, other, bin, corruption] = ["label", "predicted", "bin", "corruption"].map(value);
    const key = SORT[value("sort")];
    list = every
      .filter(SHOW[value("show")])
      .filter((index) => label === "" || labels[index] === Number(label))
      .filter((index) => other === "" || runs.some((run) => predicted(index, run) === Number(other)))
      .filter((index) => bin === "" || data.bins[index] === Number(bin))
      .filter((index) => corruption === "" || failsAt(index, corruption))
      .sort(
        (one, two) =>
          failsAt(one, corruption) - failsAt(two, corruption) || key[one] - key[two] || one - two,
      );
    found.textContent = list.length
      ? `${thousands(list.length)} found among the ${thousands(ids.length)} images held here`
      : "No image of this kind is among those shown here.";
    tiles.replaceChildren();
    tiles.scrollTop = 0;
    at = 0;
    more();
    outline();
  }

  function more() {
    const from = tiles.querySelectorAll("button.tile").length;
    const next = list.slice(from, from + BATCH).map((index, place) => tile(index, from + place));
    tiles.querySelector(".more")?.remove();
    tiles.append(...next);
    if (from + next.length < list.length) {
      const button = make("button", { type: "button", class: "more", onclick: more }, "More images");
      tiles.append(button);
      ends.observe(button);
    }
  }

  const ends = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting || !entry.target.isConnected) continue;
        ends.unobserve(entry.target);
        more();
      }
    },
    { root: tiles, rootMargin: "400px" },
  );

  function words(index) {
    const said = runs.map((run) => `${runs.length > 1 ? `${run.name} ` : ""}predicted ${
      classes[predicted(index, run)]} ${percent(run.shares[index][0])}`);
    return `label ${classes[labels[index]]}, ${said.join(", ")}`;
  }

  function tile(index, place) {
    const spoken = (text) => make("span", { class: "spoken" }, text);
    const lines = runs.flatMap((run) => [
      runs.length > 1 ? make("span", { class: "is" }, run.name) : "",
      spoken(" predicted "),
      make(
        "span",
        { class: isRight(index, run) ? "said right" : "said" },
        `${isRight(index, run) ? "✓ " : ""}${classes[predicted(index, run)]}`,
      ),
      spoken(` ${percent(run.shares[index][0])},`),
    ]);
    const limit = failsAt(index);
    const button = make(
      "button",
      {
        type: "button",
        class: "tile",
        tabindex: place === 0 ? "0" : "-1",
        title: ids[index],
        "data-id": ids[index],
        "data-place": place,
        onclick: () => open(place),
        onfocus: () => settle(place),
      },
      draw(index),
      ...lines,
      make("span", { class: "is" }, `true: ${classes[labels[index]]}`),
      limit ? make("span", { class: "is" }, `wrong from severity ${limit}`) : undefined,
    );
    return badge(button);
  }

  function badge(tile) {
    const now = marks.get(tile.dataset.id);
    tile.toggleAttribute("data-marked", Boolean(now));
    if (now) tile.dataset.marked = { keep: "✓", correct: "✎", drop: "✕", unsure: "?" }[now.action];
    return tile;
  }

  // The one tile that the tab key comes to.
  function settle(place) {
    tiles.querySelector('.tile[tabindex="0"]')?.setAttribute("tabindex", "-1");
    at = place;
    button(place)?.setAttribute("tabindex", "0");
  }

  const button = (place) => tiles.querySelector(`.tile[data-place="${place}"]`);

  function move(place) {
    if (place < 0 || place >= list.length) return false;
    while (!button(place)) more();
    settle(place);
    return true;
  }

  tiles.addEventListener("keydown", (event) => {
    if (!event.target.matches(".tile")) return;
    const top = button(0).offsetTop;
    const all = [...tiles.querySelectorAll(".tile")];
    const across = all.findIndex((each) => each.offsetTop !== top);
    const row = across < 0 ? all.length : across;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row };
    let place = { Home: 0, End: list.length - 1 }[event.key];
    if (event.key in steps) place = at + steps[event.key];
    if (place === undefined) return;
    event.preventDefault();
    if (move(place)) button(place).focus();
  });

  // -- one image, large ------------------------------------------------------------------------

  function open(place) {
    if (!move(place)) return;
    const index = list[place];
    const id = ids[index];
    const label = classes[labels[index]];
    const first = runs.find((run) => !isRight(index, run)) || runs[0];
    const row = closer ? closer.ids.indexOf(id) : -1;
    const near = row < 0 ? [] : closer.neighbours[row];
    const shown = (canvas, text) => make("figure", {}, canvas, make("figcaption", {}, text));
    const part = (number, text) => shown(closer.draw(row * closer.count + number, text), text);
    const step = (to, text, key) =>
      make(
        "button",
        { type: "button", title: key, disabled: to < 0 || to >= list.length ? "" : undefined,
          onclick: () => open(to) },
        text,
      );
    viewer.replaceChildren(
      make("div", { class: "large" }, draw(index, words(index))),
      make(
        "div",
        { class: "facts-of" },
        make("h3", {}, make("span", { class: "muted" }, "label "), label),
        make("p", { class: "id muted" }, id),
        ...runs.map((run) => shares(index, run)),
        make("div", { class: "choices" }, ...buttons(id, label, classes[predicted(index, first)])),
      ),
      row < 0
        ? ""
        : make(
            "div",
            { class: "near" },
            part(0, "where it looked"),
            ...near.map((name, number) => part(number + 1, `training: ${name}`)),
          ),
      make(
        "div",
        { class: "steps" },
        step(place - 1, "← Previous", "left arrow"),
        make("span", { class: "muted" }, `${place + 1} of ${thousands(list.length)}`),
        step(place + 1, "Next →", "right arrow"),
        make("button", { type: "button", onclick: () => viewer.close(), title: "Escape" }, "Close"),
      ),
    );
    if (!viewer.open) viewer.showModal();
    viewer.dataset.place = place;
    viewer.tabIndex = -1;
    viewer.focus();
  }

  function shares(index, run) {
    const line = (kind, number) => {
      const right = kind === labels[index];
      const bar = make(
        "div",
        { class: right ? "likely right" : "likely" },
        make("span", {}, right ? "✓ " : "", classes[kind]),
        make("span", {}, percent(run.shares[index][number])),
      );
      bar.style.setProperty("--share", run.shares[index][number] / 1000);
      return bar;
    };
    const facts = `loss ${run.loss[index].toFixed(2)}, label quality ${run.quality[index].toFixed(2)}`;
    return make(
      "div",
      {},
      make("p", { class: "who" }, runs.length > 1 ? make("strong", {}, `${run.name}: `) : "", facts),
      ...run.likeliest[index].map(line),
    );
  }

  viewer.addEventListener("keydown", (event) => {
    if (event.target.matches("select") || event.ctrlKey || event.metaKey || event.altKey) return;
    const place = Number(viewer.dataset.place);
    const press = (action) => viewer.querySelector(`[data-action="${action}"]`).click();
    const keys = {
      ArrowLeft: () => open(place - 1),
      ArrowRight: () => open(place + 1),
      k: () => press("keep"),
      d: () => press("drop"),
      u: () => press("unsure"),
      c: () => viewer.querySelector("select").focus(),
    };
    if (!(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close();
    else if (event.target.matches("[data-action]")) open(Number(viewer.dataset.place));
  });
  viewer.addEventListener("change", () => open(Number(viewer.dataset.place)));
  // The browser itself goes back to the tile that was opened first.
  viewer.addEventListener("close", () => button(Number(viewer.dataset.place))?.focus());

  // -- the charts above: a click chooses what is shown here ------------------------------------

  const charts = [...document.querySelectorAll("figure[data-explore]")].map((figure) => {
    const [[left, top, right, bottom], [x0, y1, x1, y0]] = JSON.parse(figure.dataset.area);
    const svg = figure.querySelector("svg");
    const frame = document.createElementNS(svg.namespaceURI, "rect");
    frame.setAttribute("class", "chosen");
    svg.append(frame);
    const across = (x) => left + ((x - x0) / (x1 - x0)) * (right - left);
    const down = (y) => bottom + ((y - y0) / (y1 - y0)) * (top - bottom);
    svg.addEventListener("click", (event) => {
      const at = new DOMPoint(event.clientX, event.clientY);
      const { x, y } = at.matrixTransform(svg.getScreenCTM().inverse());
      if (y < top || y > bottom || x > right) return;
      const place = [x0 + ((x - left) / (right - left)) * (x1 - x0),
        y0 + ((y - bottom) / (top - bottom)) * (y1 - y0)];
      const order = JSON.parse(figure.dataset.order || "null");
      if (choose(figure.dataset.explore, order, x < left, ...place)) show();
    });
    figure.querySelector("figcaption").append(make("span", { class: "no-print" }, " Click to see the images."));
    const order = JSON.parse(figure.dataset.order || "null");
    return { kind: figure.dataset.explore, order, frame, across, down, left, top, right, bottom };
  });

  // order: which class or corruption each row of a chart, and each column of a matrix, is of.
  function choose(kind, order, isBeside, x, y) {
    const set = { show: "wrong", label: "", predicted: "", bin: "", corruption: "" };
    const at = (place) => (order ? order[Math.round(place)] : Math.round(place));
    if (kind === "cell") {
      set.label = at(y);
      if (!isBeside) set.predicted = at(x);
      if (set.label === set.predicted) set.show = "correct";
    } else if (kind === "corruption") {
      set.corruption = at(y);
      set.show = "correct";
      if (set.corruption === undefined || !form.elements.corruption) return false;
    } else if (kind === "class") {
      set.label = data.rows[Math.round(y)];
    } else {
      const bin = data.edges.findLastIndex((edge) => edge <= x);
      if (isBeside || bin < 0 || bin > data.edges.length - 2) return false;
      set.bin = bin;
      set.show = "all";
    }
    if (["cell", "class"].includes(kind) && !(set.label in classes)) return false;
    for (const [name, value] of Object.entries(set)) {
      if (form.elements[name]) form.elements[name].value = value;
    }
    return true;
  }

  // Bars of a table, by the names of their rows.
  for (const row of document.querySelectorAll("[data-choose=corruption] tr")) {
    row.addEventListener("click", () => {
      const { options } = form.elements.corruption;
      const at = [...options].findIndex((each) => each.text === row.cells[0].textContent);
      choose("corruption", [options[at].value], false, 0, 0);
      show();
    });
  }

  function show() {
    filter();
    root.scrollIntoView({ block: "start" });
  }

  // Frames in the charts what the filters choose.
  function outline() {
    const chosen = ["label", "predicted", "bin", "corruption"].map((name) =>
      value(name) === "" ? undefined : Number(value(name)),
    );
    for (const chart of charts) {
      const sides = surround(chart, ...chosen);
      chart.frame.style.display = sides ? "" : "none";
      if (!sides) continue;
      const [x, end, y, low] = sides;
      chart.frame.setAttribute("x", Math.min(x, end));
      chart.frame.setAttribute("width", Math.abs(end - x));
      chart.frame.setAttribute("y", Math.min(y, low));
      chart.frame.setAttribute("height", Math.abs(low - y));
    }
  }

  function surround(chart, label, other, bin, corruption) {
    const { kind, order, across, down, left, top, right, bottom } = chart;
    const around = (scale, place) => [scale(place - 0.5), scale(place + 0.5)];
    const of = (each) => (order ? order.indexOf(each) : each);
    if (kind === "cell" && (label !== undefined || other !== undefined)) {
      if ([label, other].some((each) => each !== undefined && of(each) < 0)) return undefined;
      const [x, end] = other === undefined ? [left, right] : around(across, of(other));
      return [x, end, ...(label === undefined ? [top, bottom] : around(down, of(label)))];
    }
    if (kind === "corruption" && corruption !== undefined) {
      return [left, right, ...around(down, of(corruption))];
    }
    if (kind === "class" && label !== undefined) {
      return [left, right, ...around(down, data.rows.indexOf(label))];
    }
    if (kind === "bin" && bin !== undefined) {
      return [across(data.edges[bin]), across(data.edges[bin + 1]), top, bottom];
    }
    return undefined;
  }

  form.addEventListener("change", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());
  find(".live").hidden = false;
  changed();
  filter();
})();
