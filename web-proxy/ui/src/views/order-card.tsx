// One order on its way to its outcome: what was asked, how far it is, how it ended and why.
import { useSignal } from "@preact/signals";
import type { OrderKind } from "../api/pending";
import type { Step, Submission } from "../api/submission";
import { Button, Spinner, type Tone } from "../components/basics";
import { Icon, type IconName } from "../components/icon";
import { CommandState } from "../gen/pasamanos/v1/resources_pb";
import { t } from "../i18n";
import { resolutionText } from "../i18n/resolution";
import {
  basisWord,
  orderTitle,
  reasonText,
  refusalName,
  refusalText,
  stepLine,
  stepState,
} from "../i18n/words";
import { useSession } from "../store/session";
import { SettleDialog } from "./settle-dialog";

/** The orders of one feeder, newest first, read out as they change. */
export function OrderList({ feeder }: { feeder: string }) {
  const session = useSession();
  const orders = session.orders.list.value.filter((s) => s.order.feeder === feeder);
  return (
    <div class="orders" aria-live="polite">
      {orders.map((s) => (
        <OrderCard key={s.order.id} submission={s} />
      ))}
    </div>
  );
}

interface OrderCardProps {
  submission: Submission;
  /** Shown where the feeder is not plain from the place; there a dose in doubt can be settled, too. */
  feeder?: string;
}

export function OrderCard({ submission, feeder }: OrderCardProps) {
  const session = useSession();
  const settling = useSignal(false);
  const { order } = submission;
  const step = submission.step.value;
  const { tone, icon } = lookOf(step);
  const command = step.phase === "settled" || step.phase === "accepted" ? step.command : undefined;
  const doubt = step.phase === "settled" && command?.state === CommandState.UNCERTAIN && order.kind === "feed_now";
  const open = submission.open;
  return (
    <div
      class={`order tone-${tone}`}
      data-testid="outcome"
      data-state={stepState(step)}
      data-reason={command?.reason || undefined}
      data-kind={order.kind}
      data-command={submission.name}
    >
      <div class="order-icon">{icon === "spin" ? <Spinner /> : <Icon name={icon} />}</div>
      <div class="order-body">
        <p class="order-title">
          {feeder && `${feeder} · `}
          {orderTitle(order.kind, order.amountMg)}
        </p>
        <p class="order-line">
          {command?.resolution ? resolutionText(command.resolution) : stepLine(step, order.kind)}
          {command && command.dispensedMg !== undefined && <small> ({basisWord(command.basis)})</small>}
        </p>
        {!command?.resolution && <Why step={step} />}
        {open && <Progress step={step} kind={order.kind} />}
        <div class="order-actions">
          {step.phase === "lost" && submission.repeatable && (
            <Button data-testid="order-repeat" onClick={() => session.orders.repeat(submission)}>
              {t.value.order.tryAgain}
            </Button>
          )}
          {doubt && feeder && !command?.resolution && (
            <Button
              kind="danger"
              data-testid="order-settle"
              onClick={() => {
                settling.value = true;
              }}
            >
              {t.value.settle.open}
            </Button>
          )}
        </div>
      </div>
      {!open && (
        <Button
          kind="quiet"
          icon="close"
          aria-label={t.value.dismiss}
          data-testid="order-dismiss"
          onClick={() => session.orders.dismiss(order.id)}
        />
      )}
      {settling.value && (
        <SettleDialog
          name={submission.name}
          onClose={() => {
            settling.value = false;
          }}
        />
      )}
    </div>
  );
}

/** The reason, in the page's words. */
function Why({ step }: { step: Step }) {
  const session = useSession();
  if (step.phase === "refused") {
    return (
      <p class="order-why" data-testid="refusal" data-reason={refusalName(step.refusal)}>
        {refusalText(step.refusal, session.naming)}
      </p>
    );
  }
  if (step.phase !== "settled" || step.command.reason === "") return null;
  const { reason, reasonMetadata } = step.command;
  return <p class="order-why">{reasonText(reason, reasonMetadata, session.naming)}</p>;
}

/** Three steps that a person can count on: sent, at the farm, proven. */
function Progress({ step, kind }: { step: Step; kind: OrderKind }) {
  const names = kind === "feed_now" ? t.value.outcome.stepsDose : t.value.outcome.steps;
  const state = step.phase === "accepted" ? (step.command?.state ?? CommandState.ACCEPTED) : 0;
  // "Read back" is never under way to our knowledge: it is known when it is done.
  const reached = state >= CommandState.ACCEPTED ? 1 : 0;
  return (
    <ol class="progress" aria-hidden="true">
      {[names.sent, names.farm, names.proven].map((name, i) => (
        <li key={name} class={i < reached ? "done" : i === reached ? "doing" : ""}>
          {name}
        </li>
      ))}
    </ol>
  );
}

function lookOf(step: Step): { tone: Tone; icon: IconName | "spin" } {
  switch (step.phase) {
    case "sending":
    case "accepted":
      return { tone: "info", icon: "spin" };
    case "retrying":
    case "unknown":
      return { tone: "warn", icon: "spin" };
    case "refused":
      return { tone: "danger", icon: "warning" };
    case "lost":
      return { tone: "warn", icon: "broken" };
    case "settled":
      if (step.command.resolution) return { tone: "off", icon: "user" };
      return COMMAND_LOOK[step.command.state] ?? { tone: "unknown", icon: "unknown" };
  }
}

export const COMMAND_LOOK: Partial<Record<CommandState, { tone: Tone; icon: IconName }>> = {
  [CommandState.ACCEPTED]: { tone: "info", icon: "clock" },
  [CommandState.SENT]: { tone: "info", icon: "clock" },
  [CommandState.EXECUTING]: { tone: "info", icon: "clock" },
  [CommandState.APPLIED]: { tone: "ok", icon: "ready" },
  [CommandState.PARTIAL]: { tone: "warn", icon: "warning" },
  [CommandState.REJECTED]: { tone: "danger", icon: "close" },
  [CommandState.EXPIRED]: { tone: "off", icon: "close" },
  [CommandState.UNCERTAIN]: { tone: "danger", icon: "unknown" },
};
