// Español: una frase por motivo, con sus datos; dice qué hacer después. Nunca el inglés del servidor.
import type { ReasonName, ReasonText } from "./facts";

const at = (name: string | undefined) => (name === undefined ? "" : ` (${name})`);

export const reasons: Partial<Record<ReasonName, ReasonText>> = {
  AGENT_OFFLINE: (f) => {
    const since = f.duration("since_ms");
    const what = since === undefined ? "El PC de la granja no está conectado." : `El PC de la granja calla desde hace ${since}.`;
    return `${what} No se envió nada. Pare o cambie en la máquina, o espere a que la granja esté en línea.`;
  },
  AGENT_MOVING: () => "El PC de la granja está cambiando de conexión. No se envió nada. Pruebe en unos segundos.",
  AGENT_LOST: () => "Se perdió la conexión con el PC de la granja antes de la respuesta. Puede haberse hecho. Mire el tanque.",
  LEASE_STORE_UNREACHABLE: () =>
    "El servidor no puede saber si la granja está conectada. No se envió nada. Pruebe en un minuto; para parar ya un alimentador, hágalo en la máquina.",
  DATABASE_UNREACHABLE: () => "El servidor no alcanza sus registros. No se envió nada. Pruebe en un minuto.",
  ACCEPTANCE_UNKNOWN: () => "El servidor aún no puede decir si tomó esta orden. Espere: esta página sigue preguntando.",
  INVALID_FIELD: () => "Algo en la orden no está permitido. El campo está marcado.",
  REQUEST_ID_REQUIRED: () => "Esta página está anticuada. Vuelva a cargarla y pruebe otra vez.",
  REQUEST_ID_REUSED: () => "Esta orden ya se usó para otra cosa. Empiece de nuevo.",
  ETAG_REQUIRED: () => "Esta página está anticuada. Vuelva a cargarla y pruebe otra vez.",
  ETAG_MISMATCH: () => "Los ajustes cambiaron mientras usted editaba. No se envió nada. Compare y decida.",
  CONFIG_IN_FLIGHT: () => "Otro cambio de este alimentador está en camino. Espere a que termine.",
  CHANGED_AT_FARM: () => "Los ajustes se cambiaron en la granja justo antes. No se escribió nada. Compare y decida.",
  CONFIG_MIXED: () =>
    "El PLC tomó solo una parte del cambio. El alimentador queda retenido hasta confirmar los ajustes. Revíselos y aplique de nuevo.",
  REVERTED_BY_PLC: () => "El PLC tomó el valor y puso el anterior. Averigüe en la granja por qué lo rechaza.",
  PLC_UNREACHABLE: (f) => `El PC de la granja no alcanza el PLC${at(f.name("robot"))}. No se le envió nada. Revise su corriente y su red.`,
  FEEDER_HELD: () => "El alimentador está retenido. Reanúdelo primero.",
  FEEDER_OFF: () => "El alimentador está apagado. Póngalo primero en automático o manual.",
  FEEDER_FAULT: (f) => {
    const code = f.text("fault_code");
    return code === undefined ? "El alimentador tiene una avería. Resuélvala primero." : `El alimentador tiene la avería ${code}. Resuélvala primero.`;
  },
  LOCAL_HOLD: () => "El alimentador se paró en la granja. Solo allí se puede soltar.",
  INTERLOCK: (f) => {
    const value = f.reading("value");
    const limit = f.reading("limit");
    if (value === undefined && limit !== undefined) return `Falta la medida del agua. Hace falta para alimentar (límite ${limit}).`;
    if (value === undefined) return "Una medida del agua impide alimentar, o falta. Revise el sensor y el tanque.";
    return limit === undefined
      ? `El agua impide alimentar: ${value}. Revise el tanque.`
      : `El agua impide alimentar: ${value}, límite ${limit}. Revise el tanque.`;
  },
  DAILY_CAP: (f) => {
    const left = f.amount("left_mg");
    return left === undefined
      ? "Se pasaría del tope de hoy."
      : `Se pasaría del tope de hoy: quedan ${left}. Dé menos o suba el tope.`;
  },
  ENVELOPE: (f) => {
    const left = f.amount("left_mg");
    return left === undefined
      ? "Se pasaría del límite propio de la granja en 24 horas."
      : `Se pasaría del límite propio de la granja en 24 horas: quedan ${left}.`;
  },
  NOT_ENFORCED: () => "Nada en esta granja hace cumplir ese límite; no se puede poner.",
  READ_ONLY: () => "Esta granja deja mirar, no cambiar. Cámbielo en la máquina.",
  BUSY_DOSING: () => "El alimentador estuvo dando pienso todo el tiempo. No se cambió nada. Pruebe tras la toma.",
  READBACK_NOT_PROVEN: (f) =>
    `No se pudo probar que la respuesta del PLC fuera reciente${at(f.name("robot"))}. El cambio puede estar en vigor. Mire en la máquina.`,
  REVERTED_AT_FARM: () => "Un cambio en la granja devolvió ajustes anteriores. Compare las dos versiones.",
  PLC_CLOCK_WRONG: (f) => `El reloj del PLC no anda o saltó${at(f.name("robot"))}. Hay que ponerlo en hora en la granja.`,
  PROTOCOL_TOO_OLD: () => "El programa del PC de la granja es demasiado viejo para este servidor. Actualícelo.",
  DOSE_UNSETTLED: (f) =>
    `Una toma anterior${at(f.name("robot"))} sigue en duda. Diga primero qué pasó; hasta entonces no se da nada por orden.`,
  SUPERSEDED_BY_HOLD: () => "Una retención se adelantó. No se dio ni cambió nada.",
  SESSION_SUPERSEDED: () => "Otra conexión del mismo PC de la granja tomó el relevo.",
  UNKNOWN_AGENT: (f) => `El servidor no conoce este PC de la granja${at(f.name("agent"))}. Hay que darlo de alta.`,
  DUPLICATE_AGENT: (f) => `Dos máquinas usan la identidad de un mismo PC${at(f.name("agent"))}. Pare una de ellas.`,
  NOT_FOUND: () => "Eso no existe, o usted no puede verlo.",
  OUTCOME_PENDING: () => "La orden está en camino. Aún no se sabe el resultado.",
  START_LIMIT: () => "No pudo empezar a tiempo. No se hizo, ni se hará.",
  NOT_IN_DOUBT: () => "Ya no hay nada que aclarar.",
  HELD: () => "Terminó antes porque se retuvo el alimentador.",
  PLC_REFUSED: (f) => {
    const why = f.text("plc_reason");
    return why === undefined ? "El PLC lo terminó o rechazó por sí mismo." : `El PLC lo terminó o rechazó por sí mismo: ${why}.`;
  },
  PLC_MEMORY_LOST: (f) => `El PLC perdió su memoria mientras tanto${at(f.name("robot"))}. Revise el alimentador en la granja.`,
  JOURNAL_NOT_WHOLE: (f) => {
    const robot = f.name("robot");
    return robot === undefined
      ? "El PC de la granja perdió parte de sus registros y no puede saberlo. Mire el tanque y diga qué pasó."
      : `El PC de la granja perdió parte de sus registros: ${robot} dio dosis que nadie recuerda. Mire los tanques y restablezca el margen en el PC de la granja.`;
  },
  OVERLOADED: () => "El servidor está ocupado. No se envió nada. Pruebe en unos segundos.",
  CONFIG_UNKNOWN: () => "Aún no se conocen los ajustes de este alimentador: su PLC nunca se leyó.",
  INTERNAL: (f) => {
    const incident = f.text("incident");
    return incident === undefined
      ? "El servidor cometió un error. Pruebe otra vez; si sigue, avise a soporte."
      : `El servidor cometió un error. Dé este número a soporte: ${incident}.`;
  },
  SERVER_STOPPING: () => "El servidor se está reiniciando. Pruebe en unos segundos.",
  NOT_OFFERED: () => "Este alimentador no puede hacer eso.",
  FAULT_CHANGED: () => "El alimentador muestra ahora otra avería. Mírela de nuevo.",
};
