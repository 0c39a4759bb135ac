// Sends this device's camera as JPEG over a web socket, after the visitor has asked for it and the browser's own question.
// Never stale: a picture is taken only when the one before it has been answered, and no sooner than the answer asks for.
const REFUSED = 1008; // trying again is of no use
const LEAST_PAUSE_MS = 1000;

export default {
  template: `
    <div>
      <p class="soft" style="margin:0 0 12px">Pictures go to this Moodline alone and are not kept; numbers about emotions are.
        Sending ends when you stop it or leave this page.</p>
      <video ref="video" class="video" v-show="on" muted playsinline aria-label="What your camera sees"></video>
      <p role="status" class="soft nums" style="margin:8px 0">{{ text }}</p>
      <button ref="button" class="q-btn q-btn-item q-btn--actionable act" style="padding:8px 18px" @click="on ? stop('Stopped.') : start()">
        {{ on ? "Stop the camera" : "Start the camera" }}</button>
    </div>`,
  props: { path: String, fps: Number, side: Number },
  data: () => ({ on: false, text: "" }),
  beforeUnmount() {
    this.stop("");
  },
  methods: {
    async start() {
      if (!navigator.mediaDevices?.getUserMedia) {
        this.text = "The browser gives the camera only to pages on this machine or over https.";
        return;
      }
      this.text = "Waiting for your consent …";
      try {
        const wanted = { video: { width: { ideal: this.side }, facingMode: "user" }, audio: false };
        this.stream = await navigator.mediaDevices.getUserMedia(wanted);
      } catch (error) {
        this.text = error.name === "NotAllowedError" ? "You have not allowed the camera." : "No camera could be opened.";
        return;
      }
      this.$refs.video.srcObject = this.stream;
      await this.$refs.video.play();
      this.on = true;
      this.sent = 0;
      this.pause = LEAST_PAUSE_MS;
      this.connect();
    },
    connect() {
      if (!this.on) return;
      this.text = "Connecting …";
      const socket = (this.socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${this.path}`));
      socket.onmessage = (event) => this.hear(socket, JSON.parse(event.data));
      socket.onclose = (event) => {
        clearTimeout(this.timer);
        if (!this.on || this.socket !== socket) return;
        const reason = this.problem || "The connection broke";
        if (event.code === REFUSED) return this.stop(`${reason}.`);
        this.text = `${reason}. Trying again …`;
        this.timer = setTimeout(this.connect, this.pause);
        this.pause = Math.min(15_000, this.pause * 2);
      };
    },
    hear(socket, answer) {
      if (this.socket !== socket || !this.on) return;
      if (answer.type === "error") this.problem = answer.error.message;
      if (answer.type === "error" && answer.number === null) return; // it closes now
      if (answer.type === "frame") {
        this.problem = "";
        this.pause = LEAST_PAUSE_MS;
        this.text = `${++this.sent} pictures sent`;
      }
      this.timer = setTimeout(this.shoot, Math.max(answer.wait_ms ?? 0, 1000 / this.fps));
    },
    shoot() {
      const [video, socket] = [this.$refs.video, this.socket];
      if (!this.on || socket.readyState !== WebSocket.OPEN) return;
      const scale = Math.min(1, this.side / Math.max(video.videoWidth, video.videoHeight));
      this.canvas ??= document.createElement("canvas");
      this.canvas.width = Math.round(video.videoWidth * scale);
      this.canvas.height = Math.round(video.videoHeight * scale);
      this.canvas.getContext("2d").drawImage(video, 0, 0, this.canvas.width, this.canvas.height);
      this.canvas.toBlob((blob) => blob && socket.readyState === WebSocket.OPEN && socket.send(blob), "image/jpeg", 0.85);
    },
    stop(text) {
      this.on = false;
      clearTimeout(this.timer);
      this.socket?.close();
      for (const track of this.stream?.getTracks() ?? []) track.stop();
      if (this.$refs.video) this.$refs.video.srcObject = null;
      this.text = text;
    },
  },
};
