/* A click on the head of a column sorts the table by it; a second one the other way round. */
(() => {
  const UNITS = { d: 86400, h: 3600, min: 60, s: 1, ms: 1e-3 };

  // A number or a duration as such, so that 9 comes before 10 and 58 s before 1 min; else the text.
  function valueOf(cell) {
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = cell.textContent.trim().replaceAll(",", "").replaceAll("\u2212", "-");
    const times = [...text.matchAll(/([\d.]+)\s*(d|h|min|ms|s)\b/g)];
    if (times.length && text.startsWith(times[0][0])) {
      return times.reduce((sum, [, number, unit]) => sum + number * UNITS[unit], 0);
    }
    if (text === "" || text === "\u2013") return -Infinity;
    return /^[-+]?[\d.]/.test(text) ? parseFloat(text) : text;
  }

  function compare(one, two) {
    const both = typeof one === "number" && typeof two === "number";
    return both ? one - two || 0 : String(one).localeCompare(String(two));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const [body] = table.tBodies;
    const heads = [...table.tHead.rows[0].cells];
    if (body.rows.length < 3) continue;
    heads.forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const button = document.createElement("button");
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        // Of a number the greatest is asked for first, of a name the first in the alphabet.
        const first = head.classList.contains("number") ? "descending" : "ascending";
        const other = first === "ascending" ? "descending" : "ascending";
        for (const each of heads) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", now === first ? other : first);
        const sign = head.getAttribute("aria-sort") === "ascending" ? 1 : -1;
        const rows = [...body.rows].map((row) => [valueOf(row.cells[column]), row]);
        rows.sort((a, b) => sign * compare(a[0], b[0]));
        body.append(...rows.map(([, row]) => row));
      });
    });
  }
})();
