// Where a path such as nodes[2].config.url stands in a JSON text: from the first character of the value to behind its last.

/** `{ "nodes[0].id": [from, to], … }`; "" is the whole. A text that is no JSON gives what could be read. */
export function placesOf(text) {
  const places = new Map();
  let at = 0;
  const blank = () => { while (/\s/.test(text[at] ?? "")) at += 1; };
  const string = () => {
    const from = at;
    for (at += 1; at < text.length && text[at] !== '"'; at += 1) if (text[at] === "\\") at += 1;
    at += 1;
    return text.slice(from, at);
  };
  const list = (close, each) => {
    at += 1;
    for (let number = 0; at < text.length; number += 1) {
      blank();
      if (text[at] === close) { at += 1; return; }
      const before = at;
      each(number);
      blank();
      if (text[at] === ",") at += 1;
      else if (at === before) at += 1; // something that does not belong here
    }
  };
  const value = (path) => {
    blank();
    const from = at;
    if (text[at] === "{") {
      list("}", () => {
        if (text[at] !== '"') return;
        let name = "";
        try { name = JSON.parse(string()); } catch { return; }
        blank();
        if (text[at] === ":") at += 1;
        value(path ? `${path}.${name}` : name);
      });
    } else if (text[at] === "[") list("]", (number) => value(`${path}[${number}]`));
    else if (text[at] === '"') string();
    else while (at < text.length && !/[\s,\]}]/.test(text[at])) at += 1;
    places.set(path, [from, at]);
  };
  value("");
  return places;
}

/** The place of a path, else of what it stands in: what is missing has no place of its own. */
export function placeOf(places, path) {
  for (let part = path; part; part = part.replace(/(\.[^.[\]]*|\[\d+\]|^[^.[\]]+)$/, "")) {
    if (places.has(part)) return places.get(part);
  }
  return places.get("") ?? [0, 0];
}
