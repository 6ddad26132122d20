// A button that acts while it is held down, by mouse, finger, Space or Enter.

export function holdButton(
  button: HTMLButtonElement,
  changed: (held: boolean) => void,
  life: AbortSignal,
): void {
  let held = false;
  const set = (value: boolean) => {
    if (held === value) return;
    held = value;
    button.setAttribute("aria-pressed", String(value));
    changed(value);
  };
  const listen = { signal: life };
  const down = (event: PointerEvent) => {
    if (event.button === 0) set(true);
  };
  button.addEventListener("pointerdown", down, listen);
  for (const name of ["pointerup", "pointerleave", "pointercancel", "blur"]) {
    button.addEventListener(name, () => set(false), listen);
  }
  const key = (event: KeyboardEvent) => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    event.stopPropagation();
    set(event.type === "keydown");
  };
  button.addEventListener("keydown", key, listen);
  button.addEventListener("keyup", key, listen);
  // A long touch would otherwise open the browser's menu.
  button.addEventListener("contextmenu", (event) => event.preventDefault(), listen);
}
