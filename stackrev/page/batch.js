// A batch: which row-steps there are, and what each reads and should write; see train.js.
"use strict";

class Batch {
  constructor(strings) {
    strings.sort((one, other) => other.length - one.length);
    this.rows = strings.length;
    const steps = strings[0].length + 1;
    this.phases = [0, 1].map(() => ({ starts: new Int32Array(steps + 1), running: new Int32Array(steps), steps }));
    let at = 0;
    for (const phase of this.phases) {
      for (let t = 0; t < steps; t++) {
        let n = this.rows;
        while (strings[n - 1].length < t) n--;
        phase.starts[t] = at;
        phase.running[t] = n;
        at += n;
      }
      phase.starts[steps] = at;
    }
    this.size = at;
    this.decoderStart = this.phases[1].starts[0];
    for (const name of ["fed", "target", "before", "after"]) this[name] = new Int32Array(at).fill(-1);
    strings.forEach((string, b) => {
      let last = -1;
      for (let p = 0; p < 2; p++)
        for (let t = 0; t <= string.length; t++) {
          const g = this.phases[p].starts[t] + b;
          this.before[g] = last;
          if (last >= 0) this.after[last] = g;
          last = g;
          const written = k => 3 + string[string.length - 1 - k];
          this.fed[g] = p === 0 ? (t === 0 ? 0 : 3 + string[t - 1]) : t === 0 ? 1 : written(t - 1);
          if (p === 1) this.target[g] = t < string.length ? written(t) : 2;
        }
    });
  }
}
