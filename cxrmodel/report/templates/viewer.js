{
  const viewer = document.querySelector("#viewer");
  const stage = viewer.querySelector(".stage");
  const viewButtons = viewer.querySelector(".views");
  const shownImage = new Image();
  const zooms = [1, 1.5, 2, 3, 4, 6];
  let strip, index, view = 0, zoom = 0;

  const actions = {
    previous: () => { index += strip.length - 1; show(); },
    next: () => { index += 1; show(); },
    up: () => { view += views().length - 1; show(); },
    down: () => { view += 1; show(); },
    larger: () => magnify(zoom + 1),
    smaller: () => magnify(zoom - 1),
    fit: () => magnify(0),
    close: () => viewer.close(),
  };
  const keys = { ArrowLeft: "previous", ArrowRight: "next", ArrowUp: "up", ArrowDown: "down",
                 "+": "larger", "=": "larger", "-": "smaller", 0: "fit" };

  const views = () => strip[index % strip.length].querySelectorAll("img");

  function show() {
    index %= strip.length;
    view %= views().length;
    const image = views()[view];
    shownImage.src = image.src;
    shownImage.alt = `${image.alt}, ${strip[index].dataset.title}`;
    viewer.querySelector("#viewer-title").textContent = strip[index].dataset.title;
    viewButtons.replaceChildren(...[...views()].map((other, number) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = other.alt;
      button.setAttribute("aria-pressed", number === view);
      button.addEventListener("click", () => { view = number; show(); viewButtons.children[number].focus(); });
      return button;
    }));
    say(`${image.alt}, image ${index + 1} of ${strip.length}, ${strip[index].dataset.title}`);
  }

  function magnify(wanted) {  // about the middle of what is seen
    const [x, y] = [stage.scrollLeft + stage.clientWidth / 2, stage.scrollTop + stage.clientHeight / 2];
    const before = zooms[zoom];
    zoom = Math.min(Math.max(wanted, 0), zooms.length - 1);
    const factor = zooms[zoom] / before;
    shownImage.style.width = `${100 * zooms[zoom]}%`;
    stage.scrollTo(x * factor - stage.clientWidth / 2, y * factor - stage.clientHeight / 2);
    viewer.querySelector("[data-do=fit]").textContent = `${100 * zooms[zoom]} %`;
    say(`Zoom ${100 * zooms[zoom]} %`);
  }

  const say = (text) => { viewer.querySelector("[aria-live]").textContent = text; };

  for (const button of document.querySelectorAll("button.image")) {
    button.addEventListener("click", () => {
      strip = [...button.parentElement.children];
      index = strip.indexOf(button);
      view = 0;
      stage.replaceChildren(shownImage);
      viewer.showModal();
      show();
      magnify(0);
      stage.focus();
    });
  }
  for (const button of viewer.querySelectorAll("[data-do]")) {
    button.addEventListener("click", () => actions[button.dataset.do]());
  }
  viewer.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const number = "123456789".indexOf(event.key);
    if (number >= 0 && number < views().length) { view = number; show(); }
    else if (event.key in keys) actions[keys[event.key]]();
    else return;
    event.preventDefault();
  });
  stage.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse") stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) stage.scrollBy(-event.movementX, -event.movementY);
  });
  shownImage.draggable = false;
}
