// The page's icons: strokes on a 24 grid, drawn in the colour of the text around them.

const PATHS = {
  ready: "M20 6 9 17l-5-5",
  dosing: "M12 3v5m-4-3v3m8-3v3M6 12h12l-2.2 4.4a2 2 0 0 1-1.8 1.1h-4a2 2 0 0 1-1.8-1.1zM12 20v1",
  held: "M9 5v14M15 5v14",
  off: "M12 3v8m5.7-5.7a8 8 0 1 1-11.4 0",
  fault: "M12 3.5 2.5 20h19zM12 10v4.5m0 2.8v.2",
  unknown: "M9 9a3 3 0 1 1 4.2 2.8c-.8.4-1.2 1-1.2 1.9v.5m0 3.2v.1M12 21.5a9.5 9.5 0 1 0 0-19 9.5 9.5 0 0 0 0 19Z",
  close: "M6 6l12 12M18 6 6 18",
  chevron: "m9 5 7 7-7 7",
  down: "m5 9 7 7 7-7",
  back: "M19 12H5m6-6-6 6 6 6",
  search: "M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13Zm5-1.5L21 21",
  menu: "M4 7h16M4 12h16M4 17h16",
  drop: "M12 3c3.5 4.2 6 7.3 6 10.500a6 6 0 0 1-12 0C6 10.3 8.5 7.2 12 3Z",
  thermometer: "M14 13.500V5a2 2 0 1 0-4 0v8.500a4.5 4.5 0 1 0 4 0ZM12 9v8",
  hopper: "M4 4h16v3l-6 7v6h-4v-6L4 7z",
  clock: "M12 7v5l3.5 2M12 21.500a9.5 9.5 0 1 0 0-19 9.5 9.5 0 0 0 0 19Z",
  history: "M3.5 12a8.5 8.5 0 1 0 2.6-6.100M3.5 4v4h4M12 7.500V12l3 2",
  sliders: "M4 7h9m5 0h2M4 17h3m5 0h8M15.5 9.500a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5Zm-6 10a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5Z",
  hand: "M8 12V5.500a1.5 1.5 0 0 1 3 0V11m0-.500v-6a1.5 1.5 0 0 1 3 0V11m0-5a1.5 1.5 0 0 1 3 0v7m0-3.500a1.5 1.5 0 0 1 3 0V15a6.5 6.5 0 0 1-6.5 6.500h-1.200a6 6 0 0 1-4.7-2.300L4.3 15a1.6 1.6 0 0 1 2.4-2.100L8 14.3",
  play: "M7 4.500v15l12-7.500z",
  plus: "M12 5v14M5 12h14",
  trash: "M4 7h16M9 7V4h6v3m-8.5 0 1 13h9l1-13M10 11v6m4-6v6",
  warning: "M12 8v5m0 3v.200M12 21.500a9.5 9.5 0 1 0 0-19 9.5 9.5 0 0 0 0 19Z",
  info: "M12 11v5.500m0-9v.200M12 21.500a9.5 9.5 0 1 0 0-19 9.5 9.5 0 0 0 0 19Z",
  link: "M9.5 14.5 14.5 9.500M7 11l-2.5 2.500a4 4 0 0 0 6 6L13 17m-2-10 2.5-2.500a4 4 0 0 1 6 6L17 13",
  broken: "M3 3l18 18M8.5 15.500a5 5 0 0 1 5.5-1m-9-2.800a9.5 9.5 0 0 1 3.5-2.300m3-.900a9.5 9.5 0 0 1 7.5 3.200M2 9a14 14 0 0 1 4.5-2.800m4-1.100A14 14 0 0 1 22 9M12 19.500v.1",
  signal: "M8.5 15.500a5 5 0 0 1 7 0m-10-3.300a9.5 9.5 0 0 1 13 0M2 9a14 14 0 0 1 20 0M12 19.500v.1",
  arrow: "M5 12h14m-6-6 6 6-6 6",
  spark: "M12 3v4m0 10v4M3 12h4m10 0h4M5.6 5.600l2.9 2.900m7 7 2.9 2.900m0-12.8-2.9 2.900m-7 7-2.9 2.9",
  sort: "M7 4v16m0 0-3-3m3 3 3-3M17 20V4m0 0-3 3m3-3 3 3",
  user: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8Zm-7.5 9a7.5 7.5 0 0 1 15 0",
  farm: "M3 20V10l9-6 9 6v10M8 20v-6h8v6",
} as const;

export type IconName = keyof typeof PATHS;

interface IconProps {
  name: IconName;
  class?: string;
}

/** Decorative: the word beside it says the same. */
export function Icon({ name, class: className }: IconProps) {
  return (
    <svg class={className ? `icon ${className}` : "icon"} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** The product's mark: a pellet handed from hand to hand over water. */
export function Mark() {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <path d="M5 12c4.5 0 5.5-5 11-5s6.5 5 11 5" />
      <circle cx="16" cy="13.5" r="2.6" />
      <path d="M4 21c3 0 3 2.2 6 2.200s3-2.2 6-2.2 3 2.2 6 2.2 3-2.2 6-2.2" />
    </svg>
  );
}
