"use strict";
const root = document.documentElement;
const byId = (id) => document.getElementById(id);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const say = (text) => { byId("status").textContent = text; };

// Theme: the system's until the button says otherwise. Nothing is stored, so that it works wherever the file lies.
const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = (name) => {
  root.dataset.theme = name;
  byId("theme").setAttribute("aria-pressed", name === "dark");
};
theme(dark.matches ? "dark" : "light");
dark.addEventListener("change", () => theme(dark.matches ? "dark" : "light"));
byId("theme").addEventListener("click", () => theme(root.dataset.theme === "dark" ? "light" : "dark"));

// Sorting: a click, Enter or Space on a header sorts by it; a second one reverses. Rows without a value stay last either way.
const sort = (head, order) => {
  const table = head.closest("table"), heads = [...head.parentElement.cells], column = heads.indexOf(head);
  const items = table.classList.contains("ranking") ? [...table.tBodies] : [...table.tBodies[0].rows];
  const key = (item) => {
    const cell = (item.rows ? item.rows[0] : item).cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return (order === "ascending" ? 1 : -1) * (typeof a === "number" ? a - b : a.localeCompare(b));
  };
  const sorted = items.map((item) => [key(item), item]).sort((a, b) => compare(a[0], b[0]));
  items[0].parentElement.append(...sorted.map((pair) => pair[1]));
  for (const other of heads) other.setAttribute("aria-sort", other === head ? order : "none");
};
for (const head of all("th[aria-sort]")) {
  head.firstElementChild.addEventListener("click", () => {
    const now = head.getAttribute("aria-sort");
    const order = now === "none" ? head.dataset.first : now === "ascending" ? "descending" : "ascending";
    sort(head, order);
    say(`sorted by ${head.textContent.trim()}, ${order}`);
  });
}

// Rows: the button opens and closes what a row holds; Escape, anywhere in it, closes it.
const expand = (button, open) => {
  button.setAttribute("aria-expanded", open);
  byId(button.getAttribute("aria-controls")).hidden = !open;
};
for (const button of all(".expand")) {
  button.addEventListener("click", () => expand(button, button.getAttribute("aria-expanded") !== "true"));
}
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const button = event.target.closest("tbody.entry")?.querySelector('.expand[aria-expanded="true"]');
  if (!button) return;
  expand(button, false);
  button.focus();
});

// Filters and the score: what is ranked by and drawn as a bar is the mean, the worst case, or one attack that was chosen.
const chosen = (id) => (byId(id)?.selectedIndex > 0 ? byId(id).value : null);
let last = "mean";

const show = () => {
  const [dataset, victim, attack, needs] = ["data-set", "victim", "attack", "needs"].map(chosen);
  const text = byId("defense").value.trim().toLowerCase();
  const score = attack !== null ? "one" : byId("worst").checked ? "worst" : "mean";
  const fits = (item) => (needs === null || item.dataset.needs === needs) && item.dataset.defense.toLowerCase().includes(text);
  let rows = 0;
  for (const section of all("section.group")) {
    for (const item of all(".entry", section)) item.hidden = !fits(item);
    for (const mark of all("svg [data-defense]", section)) mark.classList.toggle("out", !fits(mark));
    for (const part of all("[data-attack]", section)) part.hidden = attack !== null && part.dataset.attack !== attack;
    for (const board of all(".board", section)) board.hidden = all("tbody.entry", board).every((entry) => entry.hidden);
    section.hidden =
      (dataset !== null && section.dataset.dataset !== dataset) ||
      (victim !== null && section.dataset.victim !== victim) ||
      (attack !== null && all("th[data-attack]", section).every((head) => head.hidden)) ||
      all(".board", section).every((board) => board.hidden);
    rows += section.hidden ? 0 : all("tbody.entry", section).filter((entry) => !entry.hidden).length;
  }
  byId("nothing").hidden = rows > 0;
  byId("scores").disabled = attack !== null;
  root.dataset.score = score;
  if (last !== `${score} ${attack ?? ""}`.trim()) {
    last = `${score} ${attack ?? ""}`.trim();
    for (const table of all("table.ranking")) rank(table, score, attack);
  }
  const by = { mean: "mean over attacks", worst: "worst attack", one: `accuracy on ${attack}` }[score];
  say(`${rows} of ${all("tbody.entry").length} rows shown, ranked by ${by}`);
};

const rank = (table, score, attack) => {
  const head = table.tHead.querySelector(`th.${score}`);
  const entries = [...table.tBodies].map((entry) => ({ entry, cell: entry.querySelector(`td.${score}`) }));
  if (score === "one") {
    head.querySelector(".attack").textContent = attack;
    for (const { entry, cell } of entries) {
      const card = all(".cell[data-attack]", entry).find((other) => other.dataset.attack === attack);
      cell.textContent = card ? card.querySelector(".value").textContent : "-";
      cell.dataset.value = card ? card.dataset.value : "";
      cell.style.setProperty("--share", 100 * Number(cell.dataset.value));
    }
  }
  const ranked = entries.filter(({ entry, cell }) => "ranked" in entry.dataset && cell.dataset.value !== "");
  const values = ranked.map(({ cell }) => Number(cell.dataset.value));
  for (const { entry, cell } of ranked) {
    const place = 1 + values.filter((value) => value > Number(cell.dataset.value)).length;
    const shown = entry.querySelector("td.rank");
    shown.textContent = shown.dataset.value = place;
  }
  sort(head, "descending");
};

byId("controls").addEventListener("input", show);
byId("controls").addEventListener("click", (event) => {
  if (event.target.id !== "reset") return;
  for (const select of all("#controls select")) select.selectedIndex = 0;
  byId("defense").value = "";
  byId("mean").checked = true;
  show();
});
byId("defense").addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || byId("defense").value === "") return;
  byId("defense").value = "";
  show();
});
