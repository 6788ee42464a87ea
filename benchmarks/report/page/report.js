// Hover, sort, filter and budget. Tables and drawings stand without it.
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const number = (text) => (text === undefined || text.trim() === "" ? null : Number(text));

/** Return the order of two cells: numbers, then texts, then what is not known. */
function compare(a, b, falling) {
  if (a === null || b === null) return (a === null) - (b === null);
  const [x, y] = [Number(a), Number(b)];
  const order = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  return falling ? -order : order;
}

/** Return the milliseconds of a row, timed as `how`; null where it claims none. */
function milliseconds(row, how) {
  const found = (row.dataset.ms || "").split(" ").find((part) => part.startsWith(`${how}:`));
  return found ? Number(found.slice(how.length + 1)) : null;
}

/** Tell whether a value is known and within a limit; no limit admits all. */
const within = (value, limit) => limit === null || (value !== null && value <= limit);

function sortable(table) {
  const heads = all("thead th", table);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [row.cells[column].getAttribute("data-v"), row]);
      rows.sort(([a], [b]) => compare(a, b, falling));
      body.append(...rows.map(([, row]) => row));
    });
  });
}

const tip = document.getElementById("tip");

function showTip(row, heads, x, y) {
  const lines = [...row.cells].slice(1).flatMap((cell, i) => {
    const text = cell.textContent.trim();
    return cell.hidden || text === "–" ? [] : [`${heads[i + 1].textContent}: ${text}`];
  });
  const name = document.createElement("b");
  name.textContent = row.cells[0].textContent;
  placeTip([name, ...lines.flatMap((line) => [line, document.createElement("br")])], x, y);
}

function placeTip(content, x, y) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 4))}px`;
  tip.style.top = `${y + 18 + height > innerHeight ? Math.max(4, y - height - 12) : y + 18}px`;
}

/** Let points and rows of one technique light up together, by pointer and by arrow keys. */
function linked(article) {
  const plots = all(".plot", article);
  const rows = new Map(all("tr[data-row]", article).map((row) => [row.dataset.row, row]));
  const heads = rows.size ? all("thead th", [...rows.values()][0].closest("table")) : [];

  function light(id, point) {
    all(".on", article).forEach((element) => element.classList.remove("on"));
    plots.forEach((plot) => plot.classList.toggle("busy", Boolean(id)));
    tip.hidden = true;
    if (!id) return;
    all(`[data-row="${id}"]`, article).forEach((element) => element.classList.add("on"));
    if (!point) return;
    const box = point.lastElementChild.getBoundingClientRect();
    showTip(rows.get(id), heads, box.x + box.width / 2, box.y + box.height / 2);
  }

  function nearest(plot, event) {
    const distance = (point) => {
      const box = point.lastElementChild.getBoundingClientRect();
      return Math.hypot(box.x + box.width / 2 - event.clientX, box.y + box.height / 2 - event.clientY);
    };
    const visible = all(".pt:not(.out)", plot).map((point) => [distance(point), point]);
    const [far, point] = visible.sort((a, b) => a[0] - b[0])[0] || [Infinity];
    return far < 32 ? point : null;
  }

  plots.forEach((plot) => {
    const pointed = (event) => {
      const point = nearest(plot, event);
      light(point?.dataset.row, point);
    };
    plot.addEventListener("pointermove", pointed);
    plot.addEventListener("pointerdown", pointed);
    plot.addEventListener("pointerleave", () => light());
    plot.addEventListener("blur", () => light());
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (event.key === "Escape") light();
      if (!step) return;
      event.preventDefault();
      const place = (point) => point.lastElementChild.getBoundingClientRect().x;
      const points = all(".pt:not(.out)", plot).sort((a, b) => place(a) - place(b));
      if (!points.length) return;
      const at = points.findIndex((point) => point.classList.contains("on"));
      const next = points[at < 0 ? (step > 0 ? 0 : points.length - 1) : (at + step + points.length) % points.length];
      light(next.dataset.row, next);
    });
  });
  rows.forEach((row, id) => {
    row.addEventListener("pointerenter", () => light(id));
    row.addEventListener("pointerleave", () => light());
  });
}

/** Hide what the kinds and the name leave out, grey out what a budget does, and say what fits. */
function chosen(article) {
  const rows = all("tr[data-row]", article);
  const limits = all("[data-limit]", article);
  const timed = article.querySelector("select.timed");
  const said = article.querySelector(".fits");
  if (!rows.length) return;

  function fits(row, limit) {
    const lost = number(row.dataset.points);
    return within(number(row.dataset.mib), limit.MiB ?? null)
      && within(milliseconds(row, timed?.value), limit.ms ?? null)
      && within(lost === null ? null : Number(lost.toFixed(4)), limit.points ?? null);
  }

  /** By RULE of benchmarks/report/budget.py: least lost first, then the faster, then the smaller. */
  function ranked(found) {
    const known = (row) => [number(row.dataset.points), milliseconds(row, timed?.value), number(row.dataset.mib)];
    const order = found.map((row) => [row, ...known(row).map((value) => Number((value ?? Infinity).toFixed(9)))]);
    const sign = (a, b) => [1, 2, 3].map((part) => (a[part] > b[part]) - (a[part] < b[part])).find(Boolean) || 0;
    return order.sort(sign).map(([row]) => row);
  }

  function update() {
    const kinds = new Set(all(".kinds [type=checkbox]:checked", article).map((box) => box.value));
    const word = article.querySelector("[type=search]").value.trim().toLowerCase();
    const shown = rows.filter((row) =>
      kinds.has(row.dataset.kind) && row.cells[0].textContent.toLowerCase().includes(word));
    const limit = Object.fromEntries(limits.map((box) => [box.dataset.limit, number(box.value)]));
    const asked = Object.values(limit).some((value) => value !== null);
    const found = shown.filter((row) => fits(row, limit));
    const [first, second] = ranked(found);
    rows.forEach((row) => {
      row.hidden = !shown.includes(row);
      row.classList.toggle("out", !found.includes(row));
      row.classList.toggle("best", asked && row === first);
    });
    all(".pt", article).forEach((point) => {
      const row = rows.find((other) => other.dataset.row === point.dataset.row);
      point.style.display = row.hidden ? "none" : "";
      point.classList.toggle("out", !found.includes(row));
    });
    const named = [["best", first], ["runner-up", second]].filter(([, row]) => row);
    const names = named.map(([what, row]) => `; ${what}: ${row.cells[0].textContent}`).join("");
    said.textContent = !asked ? "" : found.length ? `${found.length} of ${shown.length} fit${names}.` : "Nothing fits.";
  }

  function time() {
    all("[data-timed]", article).forEach((element) => {
      const mine = element.dataset.timed === timed.value;
      element.hidden = element.tagName === "FIGURE" ? !mine : !mine && timed.options.length > 2;
    });
    update();
  }

  all(".kinds input, [data-limit]", article).forEach((input) => input.addEventListener("input", update));
  timed?.addEventListener("change", time);
  if (timed) time();
}

/** Show one setting at a time, that of the address. */
function tabs() {
  const links = all("nav a");
  const show = () => {
    const asked = links.find((link) => link.hash === location.hash) || links[0];
    links.forEach((link) => {
      link.toggleAttribute("aria-current", link === asked);
      document.getElementById(link.hash.slice(1)).hidden = link !== asked;
    });
  };
  if (!links.length) return;
  addEventListener("hashchange", show);
  show();
}

document.documentElement.classList.add("script");
all("table").forEach(sortable);
all("article").forEach((article) => {
  linked(article);
  chosen(article);
});
tabs();
