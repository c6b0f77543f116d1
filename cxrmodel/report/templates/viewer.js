{
  const viewer = document.querySelector("#viewer");
  const stage = viewer.querySelector(".stage");
  const views = viewer.querySelector(".views");
  const picture = new Image();
  const zooms = [1, 1.5, 2, 3, 4, 6];
  let strip, film, view = 0, zoom = 0;

  const actions = {
    previous: () => { film += strip.length - 1; show(); },
    next: () => { film += 1; show(); },
    up: () => { view += shown().length - 1; show(); },
    down: () => { view += 1; show(); },
    larger: () => magnify(zoom + 1),
    smaller: () => magnify(zoom - 1),
    fit: () => magnify(0),
    close: () => viewer.close(),
  };
  const keys = { ArrowLeft: "previous", ArrowRight: "next", ArrowUp: "up", ArrowDown: "down",
                 "+": "larger", "=": "larger", "-": "smaller", 0: "fit" };

  const shown = () => strip[film % strip.length].querySelectorAll("img");

  function show() {
    film %= strip.length;
    view %= shown().length;
    const image = shown()[view];
    picture.src = image.src;
    picture.alt = `${image.alt}, ${strip[film].dataset.title}`;
    viewer.querySelector("#viewer-title").textContent = strip[film].dataset.title;
    views.replaceChildren(...[...shown()].map((other, number) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = other.alt;
      button.setAttribute("aria-pressed", number === view);
      button.addEventListener("click", () => { view = number; show(); views.children[number].focus(); });
      return button;
    }));
    say(`${image.alt}, film ${film + 1} of ${strip.length}, ${strip[film].dataset.title}`);
  }

  function magnify(wanted) {  // about the middle of what is seen
    const [x, y] = [stage.scrollLeft + stage.clientWidth / 2, stage.scrollTop + stage.clientHeight / 2];
    const before = zooms[zoom];
    zoom = Math.min(Math.max(wanted, 0), zooms.length - 1);
    const factor = zooms[zoom] / before;
    picture.style.width = `${100 * zooms[zoom]}%`;
    stage.scrollTo(x * factor - stage.clientWidth / 2, y * factor - stage.clientHeight / 2);
    viewer.querySelector("[data-do=fit]").textContent = `${100 * zooms[zoom]} %`;
    say(`Zoom ${100 * zooms[zoom]} %`);
  }

  const say = (text) => { viewer.querySelector("[aria-live]").textContent = text; };

  for (const button of document.querySelectorAll("button.film")) {
    button.addEventListener("click", () => {
      strip = [...button.parentElement.children];
      film = strip.indexOf(button);
      view = 0;
      stage.replaceChildren(picture);
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
    if (number >= 0 && number < shown().length) { view = number; show(); }
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
  picture.draggable = false;
}
