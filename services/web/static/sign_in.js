// Exchanges a key for the session cookie. The key goes from the field to the API and is kept nowhere.
export default {
  template: `
    <form class="panel sign" @submit.prevent="send">
      <h1>Sign in</h1>
      <p class="soft" style="margin:0">This Moodline asks for a key. Whoever runs it makes one with
        <code>moodline keys add</code>.</p>
      <label style="display:grid;gap:6px">Key
        <input ref="key" type="password" name="key" autocomplete="current-password" required class="plain"
          :aria-invalid="Boolean(problem)" aria-describedby="sign-problem"></label>
      <p id="sign-problem" class="sentence" role="alert" style="margin:0;color:var(--bad)">{{ problem }}</p>
      <button class="q-btn q-btn-item q-btn--actionable act" style="padding:9px 18px" :disabled="busy">Sign in</button>
    </form>`,
  props: { target: String, next: String },
  data: () => ({ problem: "", busy: false }),
  mounted() {
    this.$refs.key.focus();
  },
  methods: {
    async send() {
      this.busy = true;
      this.problem = "";
      try {
        const body = JSON.stringify({ key: this.$refs.key.value.trim() });
        const answer = await fetch(this.target, { method: "POST", headers: { "Content-Type": "application/json" }, body });
        if (answer.ok) return location.assign(this.next);
        this.problem = (await answer.json()).error?.message ?? `The service answered ${answer.status}.`;
      } catch {
        this.problem = "The service does not answer.";
      } finally {
        this.busy = false;
      }
      this.$refs.key.focus();
    },
  },
};
