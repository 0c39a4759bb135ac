// Exchanges a key for the session cookie. The key goes from the field to the API and is kept nowhere.
// The theme that the visitor chose on another page, or else the system's.
const theme = localStorage.getItem("moodline.theme");
const dark = theme === null ? matchMedia("(prefers-color-scheme: dark)").matches : theme === "dark";
document.body.classList.toggle("body--dark", dark);

const form = document.querySelector("form.sign");
const key = form.elements.key;
const problem = document.getElementById("sign-problem");
const button = form.querySelector("button");

// Only a path of this very service: what begins with two slashes, or with a slash and a backslash, is another host.
function next() {
  const path = new URLSearchParams(location.search).get("next") ?? "/";
  return /^\/(?![/\\])/.test(path) && new URL(path, location.origin).origin === location.origin ? path : "/";
}

function say(text) {
  problem.textContent = text;
  key.setAttribute("aria-invalid", String(Boolean(text)));
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  say("");
  try {
    const body = JSON.stringify({ key: key.value.trim() });
    const answer = await fetch("/api/v1/session", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (answer.ok) return location.assign(next());
    say((await answer.json()).error?.message ?? `The service answered ${answer.status}.`);
  } catch {
    say("The service does not answer.");
  } finally {
    button.disabled = false;
  }
  key.focus();
});
