// The small parts: buttons, chips, banners, meters, spinners.
import type { ComponentChildren, JSX } from "preact";
import { Icon, type IconName } from "./icon";

type Kind = "primary" | "plain" | "quiet" | "danger" | "warn";

interface ButtonProps extends Omit<JSX.IntrinsicElements["button"], "icon"> {
  kind?: Kind;
  icon?: IconName;
  busy?: boolean;
  wide?: boolean;
  children?: ComponentChildren;
}

/** A real button. While busy it keeps its place and its words. */
export function Button({ kind = "plain", icon, busy, wide, children, class: _, ...rest }: ButtonProps) {
  const names = ["button", `button-${kind}`, wide && "button-wide", !children && "button-icon"];
  return (
    <button type="button" {...rest} class={names.filter(Boolean).join(" ")} aria-busy={busy || undefined}>
      {busy ? <Spinner /> : icon && <Icon name={icon} />}
      {children && <span>{children}</span>}
    </button>
  );
}

export const Spinner = () => <span class="spinner" aria-hidden="true" />;

export type Tone = "ok" | "info" | "warn" | "danger" | "off" | "unknown";

interface ChipProps {
  tone: Tone;
  icon?: IconName;
  children: ComponentChildren;
}

/** A word with its icon and colour; the colour never stands alone. */
export function Chip({ tone, icon, children }: ChipProps) {
  return (
    <span class={`chip tone-${tone}`}>
      {icon && <Icon name={icon} />}
      <span>{children}</span>
    </span>
  );
}

interface BannerProps {
  tone: Tone;
  icon?: IconName;
  title?: ComponentChildren;
  children?: ComponentChildren;
  actions?: ComponentChildren;
  testid?: string | undefined;
  reason?: string;
  role?: "status" | "alert";
}

/** Something to know, in its colour, with what can be done about it. */
export function Banner({ tone, icon, title, children, actions, testid, reason, role }: BannerProps) {
  return (
    <div class={`banner tone-${tone}`} role={role} data-testid={testid} data-reason={reason}>
      <Icon name={icon ?? (tone === "danger" || tone === "warn" ? "warning" : "info")} />
      <div class="banner-body">
        {title && <strong>{title}</strong>}
        {children && <div>{children}</div>}
        {actions && <div class="banner-actions">{actions}</div>}
      </div>
    </div>
  );
}

interface MeterProps {
  value: number;
  max: number;
  label: string;
  text: string;
}

/** A bar of a whole; says its words to a screen reader. Turns amber near the end. */
export function Meter({ value, max, label, text }: MeterProps) {
  const share = max > 0 ? Math.min(1, Math.max(0, value / max)) : 0;
  return (
    <div
      class={share >= 0.9 ? "meter meter-high" : "meter"}
      role="meter"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={max}
      aria-valuenow={Math.min(value, max)}
      aria-valuetext={text}
    >
      <svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
        <rect width={share * 100} height="6" />
      </svg>
    </div>
  );
}
