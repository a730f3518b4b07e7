// The line under a node's name: its main setting.

const MAIN = [
  "table", "url", "condition", "function", "workflow", "event", "form", "source", "cron", "every", "for", "until", "before",
  "after", "offset", "status", "title", "message", "to", "channel", "template", "path", "items", "correlation", "summary",
  "name", "subject", "phone", "signer",
];

export function summary(node, kind) {
  const config = node.config && typeof node.config === "object" ? node.config : {};
  if (node.type === "logic.switch" && Array.isArray(config.cases)) return config.cases.map((each) => each?.port).filter(Boolean).join(" · ");
  if (config.values && typeof config.values === "object" && node.type === "logic.set") return Object.keys(config.values).join(", ");
  if (node.type === "task.user" && (config.role || config.assignee)) return `${config.title ?? ""} · ${config.role ?? config.assignee}`;
  const names = kind ? MAIN.filter((name) => name in (kind.schema.properties ?? {})) : MAIN;
  for (const name of names) {
    const value = config[name];
    if (typeof value === "string" && value.trim()) return value.trim().replace(/\s+/g, " ").slice(0, 90);
  }
  return node.name ? kind?.title ?? node.type : node.type;
}
