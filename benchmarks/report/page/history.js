// The lines of the history: the run under the pointer, and a larger copy.
// It follows report.js, whose helpers it uses.

/** Return the values of a line by the number of their run, from "7*3 8": null where there is none. */
function unpack(text) {
  return text.split(" ").flatMap((part) => {
    const [value, times] = part.split("*");
    return Array(Number(times ?? 1)).fill(value === "" ? null : value);
  });
}

/** Let a line tell the run under the pointer or chosen by arrow keys, and show a larger copy of itself. */
function traced(line, runs) {
  const values = unpack(line.dataset.values);
  const last = runs.length - 1;
  const [edge, width] = [8, 600]; // of the drawing's own units
  let at = last;
  const tell = () => {
    const box = line.getBoundingClientRect();
    const name = document.createElement("b");
    name.textContent = line.dataset.name;
    const x = box.x + box.width * (edge + (at / last) * (width - 2 * edge)) / width;
    placeTip([name, `${runs[at]}: ${values[at] ?? "not measured"}`], x, box.y + box.height / 2);
  };
  line.addEventListener("pointermove", (event) => {
    const box = line.getBoundingClientRect();
    const share = ((event.clientX - box.x) / box.width * width - edge) / (width - 2 * edge);
    at = Math.max(0, Math.min(last, Math.round(share * last)));
    tell();
  });
  line.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    at = Math.max(0, Math.min(last, at + step));
    tell();
  });
  ["pointerleave", "blur"].forEach((gone) => line.addEventListener(gone, () => { tip.hidden = true; }));
  if (line.closest("dialog")) return;
  line.addEventListener("click", () => enlarge(line, runs));
  line.addEventListener("keydown", (event) => { if (event.key === "Enter") enlarge(line, runs); });
}

function enlarge(line, runs) {
  const large = document.createElement("dialog");
  const known = unpack(line.dataset.values).filter((value) => value !== null).map(Number);
  const name = document.createElement("p");
  name.textContent = `${line.dataset.name}, from ${Math.min(...known)} to ${Math.max(...known)}`;
  const copy = line.cloneNode(true);
  large.append(name, copy, document.querySelector(".close-form").content.cloneNode(true), tip);
  document.body.append(large);
  traced(copy, runs);
  large.addEventListener("close", () => {
    document.body.append(tip);
    tip.hidden = true;
    large.remove();
  });
  large.showModal();
  copy.focus();
}

all(".history").forEach((history) => {
  const runs = history.dataset.runs.split("|");
  all(".spark", history).forEach((line) => traced(line, runs));
});
