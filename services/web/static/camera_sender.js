// Sends this device's camera as JPEG over a web socket, after the visitor has asked for it and the browser's own question.
// Never stale: a frame is taken only when the one before it has left.
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
      this.connect();
    },
    connect() {
      if (!this.on) return;
      this.text = "Connecting …";
      const socket = (this.socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${this.path}`));
      socket.onopen = () => {
        this.pause = 1000;
        this.timer = setInterval(this.shoot, 1000 / this.fps);
      };
      socket.onmessage = (event) => {
        this.refused = this.messageOf(event.data) ?? this.refused;
      };
      socket.onclose = (event) => {
        clearInterval(this.timer);
        if (!this.on || this.socket !== socket) return;
        const reason = this.refused || event.reason;
        if ([1008, 4400, 4401, 4403, 4404].includes(event.code)) return this.stop(reason || "The service refused the pictures.");
        this.text = `${reason || "The connection broke"}. Trying again …`;
        setTimeout(this.connect, (this.pause = Math.min(15_000, (this.pause ?? 1000) * 2)));
      };
    },
    messageOf(data) {
      try {
        return JSON.parse(data).error?.message;
      } catch {
        return undefined;
      }
    },
    shoot() {
      const [video, socket] = [this.$refs.video, this.socket];
      if (this.busy || socket.readyState !== WebSocket.OPEN || socket.bufferedAmount || !video.videoWidth) return;
      this.busy = true;
      this.canvas ??= document.createElement("canvas");
      const scale = Math.min(1, this.side / Math.max(video.videoWidth, video.videoHeight));
      this.canvas.width = Math.round(video.videoWidth * scale);
      this.canvas.height = Math.round(video.videoHeight * scale);
      this.canvas.getContext("2d").drawImage(video, 0, 0, this.canvas.width, this.canvas.height);
      this.canvas.toBlob((blob) => {
        this.busy = false;
        if (!blob || socket.readyState !== WebSocket.OPEN) return;
        socket.send(blob);
        this.text = `${++this.sent} pictures sent`;
      }, "image/jpeg", 0.85);
    },
    stop(text) {
      this.on = false;
      clearInterval(this.timer);
      this.socket?.close();
      for (const track of this.stream?.getTracks() ?? []) track.stop();
      if (this.$refs.video) this.$refs.video.srcObject = null;
      this.text = text;
    },
  },
};
