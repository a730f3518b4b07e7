// The curves between nodes.

/** From a port on the right of one node to the left of another; one that leads back goes round below. */
export function curve(from, to, below = Math.max(from.y, to.y)) {
  const { x: x1, y: y1 } = from;
  const { x: x2, y: y2 } = to;
  if (x2 - x1 >= 8) {
    const bend = Math.max(Math.min(28, x2 - x1), Math.min((x2 - x1) / 2, 160));
    return `M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`;
  }
  const floor = below + 46;
  return `M${x1},${y1} C${x1 + 60},${y1} ${x1 + 60},${floor} ${x1 - 10},${floor} L${x2 + 10},${floor} C${x2 - 60},${floor} ${x2 - 60},${y2} ${x2},${y2}`;
}
