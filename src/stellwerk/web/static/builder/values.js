// Below each expression what it gives with a real past run.

import { brief } from "./completion.js";
import { debounce, el } from "./dom.js";
import { ask } from "./server.js";
import { t } from "./texts.js";

const PORTION = 60; // as many as the server answers at once

export class Values {
  constructor(root, model, slug) {
    Object.assign(this, { root, model, slug });
    this.run = null;
    this.context = null;
    this.number = 0;
    this.refresh = debounce(250, () => this.show());
    root.addEventListener("input", () => this.refresh());
    root.addEventListener("drawn", () => this.refresh());
  }

  /** The past run that lends its data; a simulation lends what it made up. */
  async use(run) {
    this.run = run;
    this.context = run ? await ask("GET", `/workflow-builder/${this.slug}/context?run=${run}`).catch(() => null) : null;
    this.sent = null;
    this.refresh();
  }

  useSimulation(context) {
    this.run = null;
    this.context = context;
    this.sent = context;
    this.refresh();
  }

  async show() {
    const node = this.model.chosen;
    const places = [...this.root.querySelectorAll("[data-expression]")].map((field) => ({
      field, slot: this.root.querySelector(`[data-live="${CSS.escape(field.dataset.expression)}"]`),
    })).filter(({ field, slot }) => slot && node && (field.dataset.condition !== undefined ? field.value.trim() : field.value.includes("{{")));
    for (const slot of this.root.querySelectorAll("[data-live]")) if (!places.some((each) => each.slot === slot)) slot.hidden = true;
    if (!places.length || !this.context || (node.type === "trigger.row")) return;
    const number = ++this.number;
    for (let first = 0; first < places.length; first += PORTION) {
      const portion = places.slice(first, first + PORTION);
      let answer;
      try {
        answer = await ask("POST", `/workflow-builder/${this.slug}/values`, {
          run: this.run, context: this.sent, loop: this.model.loopAround(node.id),
          items: portion.map(({ field }) => ({ text: field.value, condition: field.dataset.condition !== undefined })),
        });
      } catch {
        return; // the value is a help; the next stroke asks again
      }
      if (number !== this.number) return; // a later question is under way
      this.tell(portion, answer.values);
    }
  }

  tell(places, values) {
    places.forEach(({ slot }, index) => {
      const found = values[index] ?? {};
      slot.hidden = !("value" in found) && !found.error;
      slot.classList.toggle("wrong", Boolean(found.error));
      if (slot.hidden) return;
      slot.replaceChildren(el("span", { class: "equals" }, "="), found.error ? found.error : el("code", {}, brief(found.value ?? null, 220)));
      slot.title = this.run ? t("with the data of run {run}", { run: this.run }) : t("with the data of the simulation");
    });
  }
}
