// Takes files that are chosen, or dropped anywhere on the page, and sends them to the API as they are, one after the other.
export default {
  template: `
    <div>
      <input ref="file" type="file" accept="video/*,.mkv,.avi,.ts" multiple hidden @change="take($event.target.files)">
      <div v-if="over" class="drop-all" aria-hidden="true">Drop a video, and its timeline begins</div>
      <div v-for="one in sending" :key="one.key" class="panel sending" role="status">
        <b>{{ one.name }}</b>
        <div v-if="!one.problem" class="progress" role="progressbar" :aria-valuenow="Math.round(one.share * 100)" aria-valuemin="0"
          aria-valuemax="100" aria-label="sent so far"><i :style="{width: one.share * 100 + '%'}"></i></div>
        <span v-if="!one.problem" class="soft nums">{{ one.text }}</span>
        <span v-else role="alert" style="color:var(--bad)">{{ one.problem }}
          <a href="#" @click.prevent="sending = sending.filter((each) => each !== one)">Close</a></span>
      </div>
    </div>`,
  props: { target: String },
  data: () => ({ over: false, sending: [] }),
  mounted() {
    this.depth = 0;
    this.listeners = { dragenter: this.enter, dragover: this.hold, dragleave: this.leave, drop: this.drop };
    for (const [name, listener] of Object.entries(this.listeners)) window.addEventListener(name, listener);
  },
  beforeUnmount() {
    for (const [name, listener] of Object.entries(this.listeners)) window.removeEventListener(name, listener);
  },
  methods: {
    open() {
      this.$refs.file.click();
    },
    holdsFiles(event) {
      return [...(event.dataTransfer?.types ?? [])].includes("Files");
    },
    enter(event) {
      if (this.holdsFiles(event)) this.over = ++this.depth > 0;
    },
    hold(event) {
      if (this.holdsFiles(event)) event.preventDefault();
    },
    leave(event) {
      if (this.holdsFiles(event)) this.over = --this.depth > 0;
    },
    drop(event) {
      if (!this.holdsFiles(event)) return;
      event.preventDefault();
      this.depth = 0;
      this.over = false;
      this.take(event.dataTransfer.files);
    },
    async take(files) {
      const chosen = [...files];
      this.$refs.file.value = "";
      for (const file of chosen) await this.send(file, chosen.length === 1);
    },
    send(file, alone) {
      this.sending.push({ key: crypto.randomUUID?.() ?? String(Math.random()), name: file.name, share: 0, text: "", problem: "" });
      const one = this.sending.at(-1);
      const began = performance.now();
      const request = new XMLHttpRequest();
      request.upload.onprogress = (event) => {
        one.share = event.total ? event.loaded / event.total : 0;
        const left = ((performance.now() - began) / 1000) * (1 / Math.max(one.share, 0.001) - 1);
        one.text = `${Math.round(one.share * 100)}% sent, about ${Math.ceil(left)} s left`;
      };
      return new Promise((resolve) => {
        request.onload = () => {
          const answer = this.read(request);
          if (request.status < 300) {
            this.sending = this.sending.filter((each) => each.key !== one.key);
            // Who leads the visitor on to the new stream must not cut off what is still being sent.
            this.$emit("uploaded", { name: file.name, answer, alone: alone && !this.sending.length });
          } else one.problem = answer?.error?.message ?? `The service answered ${request.status}.`;
          resolve();
        };
        request.onerror = () => {
          one.problem = "The connection broke. Choose the file again.";
          resolve();
        };
        request.open("POST", `${this.target}?name=${encodeURIComponent(file.name)}`);
        request.setRequestHeader("Content-Type", "application/octet-stream");
        request.send(file);
      });
    },
    read(request) {
      try {
        return JSON.parse(request.responseText);
      } catch {
        return null;
      }
    },
  },
};
