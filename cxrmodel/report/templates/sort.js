for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  for (const heading of table.tHead.querySelectorAll("th")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sort(heading));
  }
  function sort(heading) {
    const wasDescending = heading.getAttribute("aria-sort") === "descending";
    const first = heading.dataset.first ?? "descending";
    const direction = heading.hasAttribute("aria-sort") ? (wasDescending ? "ascending" : "descending") : first;
    for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [a, b].map((row) => row.cells[heading.cellIndex].dataset.value ?? "");
      if (x === "" || y === "") return (x === "") - (y === "");  // undefined ones stay last
      return sign * (isNaN(x) ? x.localeCompare(y) : x - y);
    });
    body.append(...rows);
  }
}
