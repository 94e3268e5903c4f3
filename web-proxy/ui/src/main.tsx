// The entry of the page.
import { render } from "preact";
import { browserTransport, createApi } from "./api/transport";
import { App } from "./app";
import { setLanguage, startLanguage } from "./i18n";
import { startRoute } from "./route";
import "./styles/index.css";

await setLanguage(startLanguage(), false);
startRoute();
const root = document.getElementById("app");
if (root) render(<App api={createApi(browserTransport())} />, root);
