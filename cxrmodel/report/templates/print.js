addEventListener("beforeprint", () => {  // paper cannot be opened
  for (const details of document.querySelectorAll("details")) details.open = true;
});
