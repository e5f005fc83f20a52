// What training computes with: random numbers, products of matrices, and two functions.
"use strict";

// ---- Random numbers (sfc32), and normal ones by Box and Muller.

class Random {
  constructor(seed) {
    this.a = 0; this.b = seed >>> 0; this.c = 0x9e3779b9; this.count = 1;
    for (let i = 0; i < 16; i++) this.next();
  }
  next() {
    const sum = (this.a + this.b + this.count) | 0;
    this.count = (this.count + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = (((this.c << 21) | (this.c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }
  uniform() { return this.next() / 4294967296; }
  below(count) { return Math.floor(this.uniform() * count); }
  normal() { return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform()); }
}

// ---- Products of matrices. Row strides are the widths; two rows share each load, and sums stay out of memory.

// to[n, N] += a[n, K] b[N, K]'
function multiply(to, toAt, a, aAt, b, n, K, N) {
  for (let i = 0; i < n; i += 2) {
    const left = aAt + i * K, next = i + 1 < n ? left + K : left, at = toAt + i * N;
    for (let j = 0; j < N; j += 4) {
      let p0 = 0, p1 = 0, p2 = 0, p3 = 0, q0 = 0, q1 = 0, q2 = 0, q3 = 0;
      for (let k = 0, b0 = j * K, b1 = b0 + K, b2 = b1 + K, b3 = b2 + K; k < K; k++) {
        const x = a[left + k], y = a[next + k], w0 = b[b0 + k], w1 = b[b1 + k], w2 = b[b2 + k], w3 = b[b3 + k];
        p0 += x * w0; p1 += x * w1; p2 += x * w2; p3 += x * w3;
        q0 += y * w0; q1 += y * w1; q2 += y * w2; q3 += y * w3;
      }
      to[at + j] += p0; to[at + j + 1] += p1; to[at + j + 2] += p2; to[at + j + 3] += p3;
      if (i + 1 === n) continue;
      to[at + N + j] += q0; to[at + N + j + 1] += q1; to[at + N + j + 2] += q2; to[at + N + j + 3] += q3;
    }
  }
}

// to[K, N] += a[n, K]' b[n, N]
function multiplyTransposed(to, a, aAt, b, bAt, n, K, N) {
  let i = 0;
  for (; i + 4 <= n; i += 4) {
    const left = aAt + i * K, r0 = bAt + i * N, r1 = r0 + N, r2 = r1 + N, r3 = r2 + N;
    for (let k = 0; k < K; k += 2) {
      const a0 = a[left + k], a1 = a[left + K + k], a2 = a[left + 2 * K + k], a3 = a[left + 3 * K + k];
      const c0 = a[left + k + 1], c1 = a[left + K + k + 1], c2 = a[left + 2 * K + k + 1], c3 = a[left + 3 * K + k + 1];
      for (let j = 0, row = k * N, next = row + N; j < N; j++) {
        const w0 = b[r0 + j], w1 = b[r1 + j], w2 = b[r2 + j], w3 = b[r3 + j];
        to[row + j] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3;
        to[next + j] += c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3;
      }
    }
  }
  for (; i < n; i++)
    for (let k = 0; k < K; k++) {
      const factor = a[aAt + i * K + k];
      for (let j = 0; j < N; j++) to[k * N + j] += factor * b[bAt + i * N + j];
    }
}

function transpose(to, from, rows, columns) {
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) to[j * rows + i] = from[i * columns + j];
}

const squash = x => 1 / (1 + Math.exp(-x));
const bend = x => 1 - 2 / (1 + Math.exp(2 * x));            // tanh

function addRows(to, from, start, n, width) {
  for (let i = start; i < start + n; i++) for (let j = 0; j < width; j++) to[j] += from[i * width + j];
}
