// Questions to the server. A refusal comes as problem+json and is thrown with its status and hint.

export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `The server answered ${status}.`);
    this.status = status;
    this.hint = problem.hint;
  }
}

export async function ask(method, path, body) {
  const headers = { accept: "application/json" };
  const token = document.querySelector("meta[name=csrf-token]")?.content;
  if (token) headers["x-csrf-token"] = token;
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Refusal(0, { detail: "The server does not answer." });
  }
  const content = (answer.headers.get("content-type") ?? "").includes("json") ? await answer.json() : {};
  if (!answer.ok) throw new Refusal(answer.status, content);
  return content;
}
