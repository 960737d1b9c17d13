/* Kernels for examples/barrier_cost.rs and the benchmark of trackers, which share them: freestanding, each an exported function that returns a checksum.
 * Sizes are such that one run takes some ten milliseconds. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned u32;
typedef unsigned long long u64;
#define EXPORT(name) __attribute__((export_name(#name))) u64 name(void)

static u32 state;
static u32 rnd(void) { state = state * 1664525u + 1013904223u; return state >> 4; }

#define N 200
static double A[N][N], B[N][N], C[N][N];
static void init(void) {
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) { A[i][j] = (i * j % 7) / 7.0; B[i][j] = (i + j) % 9 / 9.0; C[i][j] = 1 + (i - j) % 5; }
}
static u64 sum(double *p, int n) { double s = 0; for (int i = 0; i < n; i++) s += p[i] * (i % 13); return (u64)s; }

EXPORT(gemm) {
  init();
  for (int i = 0; i < N; i++) {
    for (int j = 0; j < N; j++) C[i][j] *= 1.2;
    for (int k = 0; k < N; k++)
      for (int j = 0; j < N; j++) C[i][j] += 1.5 * A[i][k] * B[k][j];
  }
  return sum(&C[0][0], N * N);
}
EXPORT(jacobi_2d) {
  init();
  for (int t = 0; t < 100; t++) {
    for (int i = 1; i < N - 1; i++)
      for (int j = 1; j < N - 1; j++)
        B[i][j] = 0.2 * (A[i][j] + A[i][j - 1] + A[i][j + 1] + A[i + 1][j] + A[i - 1][j]);
    for (int i = 1; i < N - 1; i++)
      for (int j = 1; j < N - 1; j++)
        A[i][j] = 0.2 * (B[i][j] + B[i][j - 1] + B[i][j + 1] + B[i + 1][j] + B[i - 1][j]);
  }
  return sum(&A[0][0], N * N);
}
static double H[2][40][40][40];
EXPORT(heat_3d) {
  for (int i = 0; i < 40 * 40 * 40; i++) (&H[0][0][0][0])[i] = (&H[1][0][0][0])[i] = (i % 40 + i % 7) * 0.1;
  for (int t = 0; t < 100; t++) {
    double (*a)[40][40] = H[t & 1], (*b)[40][40] = H[(t & 1) ^ 1];
    for (int i = 1; i < 39; i++)
      for (int j = 1; j < 39; j++)
        for (int k = 1; k < 39; k++)
          b[i][j][k] = 0.125 * (a[i + 1][j][k] - 2 * a[i][j][k] + a[i - 1][j][k]) +
                       0.125 * (a[i][j + 1][k] - 2 * a[i][j][k] + a[i][j - 1][k]) +
                       0.125 * (a[i][j][k + 1] - 2 * a[i][j][k] + a[i][j][k - 1]) + a[i][j][k];
  }
  return sum(&H[0][0][0][0], 40 * 40 * 40);
}
static int P[N][N];
EXPORT(floyd_warshall) {
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) P[i][j] = ((i + j) % 13 == 0 || (i + j) % 7 == 0) ? 999 : i * j % 7 + 1;
  for (int k = 0; k < N; k++)
    for (int i = 0; i < N; i++)
      for (int j = 0; j < N; j++)
        P[i][j] = P[i][j] < P[i][k] + P[k][j] ? P[i][j] : P[i][k] + P[k][j];
  u64 s = 0;
  for (int i = 0; i < N * N; i++) s += (&P[0][0])[i];
  return s;
}
EXPORT(lu) {
  init();
  for (int i = 0; i < N; i++) A[i][i] += N;
  for (int i = 0; i < N; i++) {
    for (int j = 0; j < i; j++) {
      for (int k = 0; k < j; k++) A[i][j] -= A[i][k] * A[k][j];
      A[i][j] /= A[j][j];
    }
    for (int j = i; j < N; j++)
      for (int k = 0; k < i; k++) A[i][j] -= A[i][k] * A[k][j];
  }
  return sum(&A[0][0], N * N);
}
static u8 bytes[1 << 22];
EXPORT(fill) {
  for (int t = 0; t < 8; t++) {
    u32 *p = (u32 *)bytes;
    for (u32 i = 0; i < sizeof bytes / 4; i++) p[i] = i * 2654435761u + t;
  }
  return bytes[12345];
}
EXPORT(sieve) {
  u64 n = 0;
  for (int t = 0; t < 2; t++) {
    for (u32 i = 0; i < sizeof bytes; i++) bytes[i] = 1;
    for (u32 i = 2; i * i < sizeof bytes; i++)
      if (bytes[i]) for (u32 j = i * i; j < sizeof bytes; j += i) bytes[j] = 0;
    for (u32 i = 2; i < sizeof bytes; i++) n += bytes[i];
  }
  return n;
}
static void quick(int *a, int n) {
  while (n > 16) {
    int p = a[n / 2], i = 0, j = n - 1;
    for (;; i++, j--) {
      while (a[i] < p) i++;
      while (a[j] > p) j--;
      if (i >= j) break;
      int t = a[i]; a[i] = a[j]; a[j] = t;
    }
    quick(a, i);
    a += i; n -= i;
  }
  for (int i = 1; i < n; i++) {
    int x = a[i], j = i;
    while (j > 0 && a[j - 1] > x) { a[j] = a[j - 1]; j--; }
    a[j] = x;
  }
}
EXPORT(sort) {
  int *a = (int *)bytes;
  state = 1;
  for (int i = 0; i < 300000; i++) a[i] = (int)rnd();
  quick(a, 300000);
  return (u64)(a[1000] ^ a[200000]);
}
EXPORT(heap) {
  u32 *a = (u32 *)bytes, n = 0; u64 s = 0;
  state = 2;
  for (int i = 0; i < 150000; i++) {
    u32 x = rnd(), k = n++;
    while (k && a[(k - 1) / 2] > x) { a[k] = a[(k - 1) / 2]; k = (k - 1) / 2; }
    a[k] = x;
  }
  while (n) {
    s = s * 3 + a[0];
    u32 x = a[--n], k = 0;
    for (;;) {
      u32 c = 2 * k + 1;
      if (c >= n) break;
      if (c + 1 < n && a[c + 1] < a[c]) c++;
      if (a[c] >= x) break;
      a[k] = a[c]; k = c;
    }
    a[k] = x;
  }
  return s;
}
EXPORT(rc4) {
  static u8 S[256];
  for (int i = 0; i < 256; i++) S[i] = (u8)i;
  u8 j = 0, i = 0;
  for (int k = 0; k < 256; k++) { j = (u8)(j + S[k] + k * 7); u8 t = S[k]; S[k] = S[j]; S[j] = t; }
  j = 0;
  for (u32 k = 0; k < sizeof bytes; k++) {
    i++; j = (u8)(j + S[i]);
    u8 t = S[i]; S[i] = S[j]; S[j] = t;
    bytes[k] = S[(u8)(S[i] + S[j])];
  }
  return bytes[4711];
}
EXPORT(blocks) {
  state = 3; u64 s = 0;
  for (int i = 0; i < 200000; i++) {
    u32 len = rnd() % 400, from = rnd() % (sizeof bytes - 512), to = rnd() % (sizeof bytes - 512);
    if (i & 1) __builtin_memmove(bytes + to, bytes + from, len); else __builtin_memset(bytes + to, i, len);
    s += bytes[from];
  }
  return s;
}
struct slot { u32 key, value; };
EXPORT(hash) {
  struct slot *t = (struct slot *)bytes;
  u32 mask = (1 << 18) - 1; u64 s = 0;
  __builtin_memset(bytes, 0, sizeof(struct slot) << 18);
  state = 4;
  for (int i = 0; i < 400000; i++) {
    u32 key = rnd() % 180000 + 1, h = key * 2654435761u >> 14;
    while (t[h & mask].key && t[h & mask].key != key) h++;
    t[h & mask].key = key; t[h & mask].value += i; s += h & mask;
  }
  return s;
}
struct node { struct node *left, *right; u32 key, priority, count, size; };
static u32 size(struct node *n) { return n ? n->size : 0; }
static struct node *insert(struct node *n, u32 key, struct node **pool) {
  if (!n) {
    n = (*pool)++;
    n->left = n->right = 0; n->key = key; n->priority = rnd(); n->count = 1; n->size = 1;
    return n;
  }
  if (key == n->key) { n->count++; return n; }
  struct node **side = key < n->key ? &n->left : &n->right;
  *side = insert(*side, key, pool);
  n->size = 1 + size(n->left) + size(n->right);
  if ((*side)->priority > n->priority) {
    struct node *m = *side;
    if (key < n->key) { n->left = m->right; m->right = n; } else { n->right = m->left; m->left = n; }
    n->size = 1 + size(n->left) + size(n->right);
    m->size = 1 + size(m->left) + size(m->right);
    return m;
  }
  return n;
}
EXPORT(treap) {
  struct node *pool = (struct node *)bytes, *root = 0;
  state = 5;
  for (int i = 0; i < 60000; i++) root = insert(root, rnd() % 100000, &pool);
  return (u64)root->size * 7 + root->left->size;
}
struct token { u32 kind, begin, end, line, depth; };
EXPORT(tokens) {
  u8 *text = bytes; struct token *out = (struct token *)(bytes + (1 << 20)); u64 s = 0;
  static const char sample[] = "{\"name\": \"value\", \"list\": [1, 22, 333, true, null],\n \"nested\": {\"a\": -12.5e3}}\n";
  u32 len = 0;
  while (len + sizeof sample < 300000) { __builtin_memcpy(text + len, sample, sizeof sample - 1); len += sizeof sample - 1; }
  for (int t = 0; t < 8; t++) {
    struct token *o = out; u32 line = 0, depth = 0;
    for (u32 i = 0; i < len;) {
      u8 c = text[i]; u32 b = i;
      if (c == '\n') { line++; i++; continue; }
      if (c <= ' ' || c == ',' || c == ':') { i++; continue; }
      if (c == '{' || c == '[') { depth++; i++; }
      else if (c == '}' || c == ']') { depth--; i++; }
      else if (c == '"') { i++; while (text[i] != '"') i++; i++; }
      else while (i < len && text[i] > ' ' && text[i] != ',' && text[i] != ']' && text[i] != '}') i++;
      o->kind = c; o->begin = b; o->end = i; o->line = line; o->depth = depth; o++;
    }
    s += (u64)(o - out) + o[-1].begin;
  }
  return s;
}
EXPORT(compress) {
  /* A byte-oriented LZ with a hash of three bytes. */
  u8 *in = bytes, *out = bytes + (1 << 21); static u32 last[1 << 14];
  state = 6;
  for (u32 i = 0; i < 1 << 20; i++) in[i] = i > 64 && rnd() % 8 ? in[i - 1 - rnd() % 60] : (u8)(rnd() % 64);
  u32 o = 0, lit = 0;
  for (u32 i = 0; i < 1 << 14; i++) last[i] = 0;
  for (u32 i = 0; i + 8 < 1 << 20;) {
    u32 h = (in[i] | in[i + 1] << 8 | in[i + 2] << 16) * 2654435761u >> 18, c = last[h], n = 0;
    last[h] = i;
    if (c && i - c < 65536) while (n < 255 && i + n < 1 << 20 && in[c + n] == in[i + n]) n++;
    if (n >= 4) { out[o++] = (u8)n; out[o++] = (u8)(i - c); out[o++] = (u8)((i - c) >> 8); i += n; lit = 0; }
    else { if (!(lit++ & 127)) out[o++] = 0; out[o++] = in[i++]; }
  }
  return o;
}
struct particle { double x, y, z, vx, vy, vz, mass; };
EXPORT(nbody) {
  struct particle *p = (struct particle *)bytes; int n = 300;
  for (int i = 0; i < n; i++) { p[i].x = i % 17; p[i].y = i % 23; p[i].z = i % 5; p[i].vx = p[i].vy = p[i].vz = 0; p[i].mass = 1 + i % 3; }
  for (int t = 0; t < 20; t++) {
    for (int i = 0; i < n; i++)
      for (int j = i + 1; j < n; j++) {
        double dx = p[i].x - p[j].x, dy = p[i].y - p[j].y, dz = p[i].z - p[j].z;
        double d = 1e-6 / (dx * dx + dy * dy + dz * dz + 1);
        p[i].vx -= dx * d * p[j].mass; p[i].vy -= dy * d * p[j].mass; p[i].vz -= dz * d * p[j].mass;
        p[j].vx += dx * d * p[i].mass; p[j].vy += dy * d * p[i].mass; p[j].vz += dz * d * p[i].mass;
      }
    for (int i = 0; i < n; i++) { p[i].x += p[i].vx; p[i].y += p[i].vy; p[i].z += p[i].vz; }
  }
  return (u64)(p[7].x * 1000);
}
EXPORT(frames) {
  /* Small arrays on the stack, as in code that was not inlined. */
  state = 8; u64 s = 0;
  for (int i = 0; i < 100000; i++) {
    volatile u32 a[24];
    for (int k = 0; k < 24; k++) a[k] = rnd() ^ (u32)k;
    a[rnd() % 24] = 5;
    s += a[i % 24];
  }
  return s;
}
