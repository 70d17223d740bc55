/* Small work on a processor: one optimizer step of PPO on two perceptrons, and acting with one of them.
 *
 * The plain twin is rl8/execution/kernels: `networks.update`, `loss.loss_gradient`, and Adam as torch has it; formulas
 * are explained there. Here rows (env steps) lie side by side: an array of a layer is [units][ROWS], so that all there
 * is, products, activations, softmax and loss, works on vectors of rows, whatever the widths. Sums are taken in one
 * order whatever the machine's load: the same numbers give the same results, bit for bit.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

/* LANES numbers make a vector; a product keeps DOWN units times ACROSS vectors of rows in registers, a weight's
 * derivative TALL times 4 sums: half as much where there are 16 registers. */
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define DOWN 4
#if defined(__AVX512F__) || defined(__aarch64__)
#define ACROSS 4
#define TALL 4
#else
#define ACROSS 2
#define TALL 2
#endif
#define ROWS 256 /* rows that are computed at once: their layers fit the caches */

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float four __attribute__((vector_size(16)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));

struct work {
    int64_t policy_layers, value_layers, tanh, gaussian, elements, parameters;
    double clip, vf_clip, dual_clip, vf_coeff, entropy_coeff, max_norm, log_half_range;
    double lr, beta1, beta2, eps, obs_limit;
    const int64_t *widths;  /* of the policy's network, inputs first, then of the value's */
    const int64_t *choices; /* [elements] of a discrete action */
    const int64_t *sizes;   /* [parameters] numbers of each */
    float **parameter, **exp_avg, **exp_avg_sq, **step;
    float *gradient; /* of all parameters, one after the other */
    const float *inputs;
    const void *actions;
    const float *logp, *values, *advantages, *returns;
    const uint8_t *mask;
    const float *shift, *scale; /* of observations, or null: inputs are ready */
    float *scratch;
};

static inline vec all(float x) { return x - (vec){}; }
static inline vec pick(ints yes, vec a, vec b) { return (vec)((yes & (ints)a) | (~yes & (ints)b)); }
static inline vec least(vec a, vec b) { return pick(a > b, b, a); } /* NaN in a stays */
static inline vec most(vec a, vec b) { return pick(a < b, b, a); }
static inline vec size_of(vec a) { return (vec)((ints)a & 0x7fffffff); }

#if defined(__clang__) || __GNUC__ >= 12
#define MIX(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MIX(a, b, ...) __builtin_shuffle(a, b, (int32_t __attribute__((vector_size(16)))){__VA_ARGS__})
#endif

static inline four folded(vec a) { /* to four sums */
    four part[LANES / 4];
    memcpy(part, &a, sizeof a);
    for (int i = 1; i < LANES / 4; i++) part[0] += part[i];
    return part[0];
}

static inline four sums_of(vec a, vec b, vec c, vec d) {
    four p = folded(a), q = folded(b), r = folded(c), s = folded(d);
    four ab = MIX(p, q, 0, 4, 1, 5) + MIX(p, q, 2, 6, 3, 7), cd = MIX(r, s, 0, 4, 1, 5) + MIX(r, s, 2, 6, 3, 7);
    return MIX(ab, cd, 0, 1, 4, 5) + MIX(ab, cd, 2, 3, 6, 7);
}

static inline float sum(vec a) {
    four part = folded(a);
    return (part[0] + part[1]) + (part[2] + part[3]);
}

/* exp, log and tanh are polynomials after Cephes and Eigen, right to a few units in the last place */
static inline vec exp_(vec x) {
    vec y = least(most(x, all(-87.3f)), all(88.7f));
    vec shifted = y * 1.44269504088896341f + 12582912.0f; /* rounds to a whole number, in the low bits */
    ints n = (ints)shifted - 0x4b400000;
    vec whole = shifted - 12582912.0f;
    vec r = y - whole * 0.693359375f + whole * 2.12194440e-4f;
    vec p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    vec half = (vec)(((n >> 1) + 127) << 23), rest = (vec)(((n - (n >> 1)) + 127) << 23);
    p = p * half * rest;
    p = pick(x > 88.7f, all(INFINITY), p);
    return pick(x < -87.3f, all(0.0f), p);
}

static inline vec log_(vec x) { /* of positive normal numbers */
    ints bits = (ints)x, e = (bits >> 23) - 126;
    vec m = (vec)((bits & 0x007fffff) | 0x3f000000);
    ints low = m < 0.707106781186547524f;
    e += low; /* -1 where low */
    m = m + pick(low, m, all(0.0f)) - 1.0f;
    vec k = __builtin_convertvector(e, vec), z = m * m;
    vec p = all(7.0376836292e-2f);
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    p = p * m * z;
    p = p + k * -2.12194440e-4f - 0.5f * z;
    vec found = m + p + k * 0.693359375f;
    return pick(x == x, found, x);
}

#define SATURATED 7.99881172180175781f /* from here on it is 1, and its slope 0, as torch has it */

static inline vec tanh_(vec x) {
    vec y = least(most(x, all(-SATURATED)), all(SATURATED)), s = y * y, one = pick(x < 0.0f, all(-1.0f), all(1.0f));
    vec p = all(-2.76076847742355e-16f);
    p = p * s + 2.00018790482477e-13f;
    p = p * s - 8.60467152213735e-11f;
    p = p * s + 5.12229709037114e-08f;
    p = p * s + 1.48572235717979e-05f;
    p = p * s + 6.37261928875436e-04f;
    p = p * s + 4.89352455891786e-03f;
    vec q = all(1.19825839466702e-06f);
    q = q * s + 1.18534705686654e-04f;
    q = q * s + 2.26843463243900e-03f;
    q = q * s + 4.89352518554385e-03f;
    vec t = y * p / q;
    t = pick((size_of(x) >= SATURATED) | (size_of(t) > 1.0f), one, t);
    return pick(size_of(x) < 0.0004f, x, t);
}

/* out[a][r] = sum_k w[a * down + k * along] in[k][r], for `units` of a; then plus bias and activation, or times its slope */
enum ending { PLAIN, TANH, RELU, TANH_SLOPE, RELU_SLOPE };

static inline __attribute__((always_inline)) void tile(
    const int units, const int across, const float *w, int64_t down, int64_t along, int64_t inner, const float *in,
    const float *bias, float *out, enum ending ending) {
    vec total[DOWN][ACROSS];
    for (int a = 0; a < units; a++)
        for (int c = 0; c < across; c++) total[a][c] = all(bias ? bias[a] : 0.0f);
    for (int64_t k = 0; k < inner; k++)
        for (int a = 0; a < units; a++)
            for (int c = 0; c < across; c++)
                total[a][c] += w[a * down + k * along] * *(const vec *)(in + k * ROWS + c * LANES);
    for (int a = 0; a < units; a++)
        for (int c = 0; c < across; c++) {
            vec *to = (vec *)(out + a * ROWS + c * LANES), found = total[a][c];
            if (ending == TANH) found = tanh_(found);
            if (ending == RELU) found = pick(found < 0.0f, all(0.0f), found);
            if (ending == TANH_SLOPE) found *= 1.0f - *to * *to;
            if (ending == RELU_SLOPE) found = pick(*to > 0.0f, found, all(0.0f));
            *to = found;
        }
}

static inline __attribute__((always_inline)) void product_(
    const float *w, int64_t down, int64_t along, int64_t units, int64_t inner, int64_t rows, const float *in,
    const float *bias, float *out, enum ending ending) {
    int64_t a = 0;
    for (; a + DOWN <= units; a += DOWN) {
        int64_t r = 0;
        for (; r + ACROSS * LANES <= rows; r += ACROSS * LANES)
            tile(DOWN, ACROSS, w + a * down, down, along, inner, in + r, bias ? bias + a : 0, out + a * ROWS + r, ending);
        for (; r < rows; r += LANES)
            tile(DOWN, 1, w + a * down, down, along, inner, in + r, bias ? bias + a : 0, out + a * ROWS + r, ending);
    }
    for (; a < units; a++)
        for (int64_t r = 0; r < rows; r += LANES)
            tile(1, 1, w + a * down, down, along, inner, in + r, bias ? bias + a : 0, out + a * ROWS + r, ending);
}

static void product(const float *w, int64_t down, int64_t along, int64_t units, int64_t inner, int64_t rows,
                    const float *in, const float *bias, float *out, enum ending ending) {
    switch (ending) {
        case PLAIN: product_(w, down, along, units, inner, rows, in, bias, out, PLAIN); break;
        case TANH: product_(w, down, along, units, inner, rows, in, bias, out, TANH); break;
        case RELU: product_(w, down, along, units, inner, rows, in, bias, out, RELU); break;
        case TANH_SLOPE: product_(w, down, along, units, inner, rows, in, bias, out, TANH_SLOPE); break;
        default: product_(w, down, along, units, inner, rows, in, bias, out, RELU_SLOPE);
    }
}

/* g[a][b] += sum_r d[a][r] x[b][r] */
static inline __attribute__((always_inline)) void outer_tile(const int m, const int n, const float *d, const float *x,
                                                             int64_t rows, float *g, int64_t width) {
    vec total[TALL][4] = {};
    for (int64_t r = 0; r < rows; r += LANES)
        for (int a = 0; a < m; a++)
            for (int b = 0; b < n; b++)
                total[a][b] += *(const vec *)(d + a * ROWS + r) * *(const vec *)(x + b * ROWS + r);
    for (int a = 0; a < m; a++)
        if (n == 4) {
            four found, add = sums_of(total[a][0], total[a][1], total[a][2], total[a][3]);
            memcpy(&found, g + a * width, sizeof found);
            found += add;
            memcpy(g + a * width, &found, sizeof found);
        } else
            for (int b = 0; b < n; b++) g[a * width + b] += sum(total[a][b]);
}

static void outer(const float *d, int64_t units, const float *x, int64_t width, int64_t rows, float *g) {
    for (int64_t a = 0; a < units; a += TALL)
        for (int64_t b = 0; b < width; b += 4) {
            const float *da = d + a * ROWS, *xb = x + b * ROWS;
            float *to = g + a * width + b;
            if (a + TALL <= units && b + 4 <= width)
                outer_tile(TALL, 4, da, xb, rows, to, width);
            else
                for (int64_t i = 0; i < TALL && a + i < units; i++)
                    for (int64_t j = 0; j < 4 && b + j < width; j++)
                        outer_tile(1, 1, da + i * ROWS, xb + j * ROWS, rows, to + i * width + j, width);
        }
}

/* Layers of a network over [units][ROWS]: `made` has the inputs, then what each layer makes. */
static float *forward(int64_t layers, const int64_t *widths, float *const *parameter, int tanh, int64_t rows,
                      const float *inputs, float *made) {
    const float *in = inputs;
    for (int64_t l = 0; l < layers; l++) {
        enum ending ending = l == layers - 1 ? PLAIN : tanh ? TANH : RELU;
        product(parameter[2 * l], widths[l], 1, widths[l + 1], widths[l], rows, in, parameter[2 * l + 1], made, ending);
        in = made;
        made += widths[l + 1] * ROWS;
    }
    return made;
}

/* `made` has what `forward` made, its last part the derivative by it; each part becomes the derivative by it. */
static void backward(int64_t layers, const int64_t *widths, float *const *parameter, int tanh, int64_t rows,
                     const float *inputs, float *made, float *gradient) {
    int64_t place = 0, size = 0;
    for (int64_t l = 0; l < layers; l++) place += widths[l + 1] * ROWS, size += widths[l + 1] * (widths[l] + 1);
    float *d = made + place;
    for (int64_t l = layers - 1; l >= 0; l--) {
        d -= widths[l + 1] * ROWS;
        size -= widths[l + 1] * (widths[l] + 1);
        float *g = gradient + size;
        float *before = d - widths[l] * ROWS;
        outer(d, widths[l + 1], l ? before : inputs, widths[l], rows, g);
        g += widths[l + 1] * widths[l];
        for (int64_t a = 0; a < widths[l + 1]; a++) {
            vec total = {};
            for (int64_t r = 0; r < rows; r += LANES) total += *(vec *)(d + a * ROWS + r);
            g[a] += sum(total);
        }
        if (l)
            product(parameter[2 * l], 1, widths[l], widths[l], widths[l + 1], rows, d, 0, before,
                    tanh ? TANH_SLOPE : RELU_SLOPE);
    }
}

struct samples { /* of one vector of rows */
    vec live, logp, values, advantages, returns;
};

/* Returns the derivative by the log-probability; adds policy loss, divergence and clipping to sums. */
static inline vec surrogate(const struct work *w, const struct samples *s, vec logp, float share, vec *sums) {
    float clip = w->clip, dual = w->dual_clip;
    vec log_ratio = logp - s->logp, ratio = exp_(log_ratio), moved = ratio - 1.0f;
    vec gain = ratio * s->advantages, held = least(most(ratio, all(1 - clip)), all(1 + clip)) * s->advantages;
    ints stopped = gain > held, alive = s->live > 0.0f;
    vec objective = pick(stopped, held, gain);
    if (dual < INFINITY) {
        vec floor = dual * s->advantages;
        ints below = (objective < floor) & (s->advantages < 0.0f);
        objective = pick(below, floor, objective);
        stopped |= below;
    }
    sums[0] += pick(alive, -objective, all(0));
    sums[3] += pick(alive, moved - log_ratio, all(0));
    sums[4] += pick(alive & (size_of(moved) > clip), all(1), all(0));
    return pick(~stopped & alive, gain * -share, all(0));
}

static inline vec by_value(const struct work *w, const struct samples *s, vec value, float share, vec *sums) {
    float limit = w->vf_clip, scale = w->vf_coeff * share;
    vec error = value - s->returns, loss = error * error;
    ints alive = s->live > 0.0f, kept = alive;
    if (limit < INFINITY) {
        vec moved = value - s->values;
        vec held = least(most(moved, all(-limit)), all(limit)) + s->values - s->returns;
        held *= held;
        kept &= ~((held > loss) & (size_of(moved) > limit));
        loss = most(loss, held);
    }
    sums[1] += pick(alive, 0.5f * loss, all(0));
    return pick(kept, error * scale, all(0));
}

#define F(f) (*(vec *)(features + (f) * ROWS))

#define IS(f) (*(const ints *)(chosen + e * ROWS) == (ints){} + (int32_t)((f) - first))

/* Turns logits of `n` choices into log-probabilities; what is forbidden has FORBIDDEN_LOGIT. */
static inline void log_softmax(float *features, int64_t first, int64_t n, const uint8_t *mask) {
    for (int64_t f = first; mask && f < first + n; f++)
        for (int i = 0; i < LANES; i++)
            if (!mask[f * ROWS + i]) features[f * ROWS + i] = -1e9f;
    vec top = F(first), total = {};
    for (int64_t f = first + 1; f < first + n; f++) top = most(top, F(f));
    for (int64_t f = first; f < first + n; f++) total += exp_(F(f) - top);
    vec base = log_(total);
    for (int64_t f = first; f < first + n; f++) F(f) = F(f) - top - base;
}

/* Turns features of one vector of rows into the loss's derivatives by them; `p` is room for as many vectors. */
static void discrete(const struct work *w, const struct samples *s, float *features, const int32_t *chosen,
                     const uint8_t *mask, float share, vec *sums, vec *p) {
    vec logp = {}, entropy = {};
    float bonus = w->entropy_coeff * share;
    int64_t first = 0;
    for (int64_t e = 0; e < w->elements; first += w->choices[e], e++) {
        int64_t end = first + w->choices[e];
        vec own = {};
        log_softmax(features, first, w->choices[e], mask);
        for (int64_t f = first; f < end; f++) {
            p[f] = exp_(F(f));
            own -= p[f] * F(f);
            logp += pick(IS(f), F(f), all(0));
        }
        for (int64_t f = first; f < end; f++) F(f) = (F(f) + own) * bonus;
        entropy += own;
    }
    vec slope = surrogate(w, s, logp, share, sums);
    ints alive = s->live > 0.0f;
    sums[2] += pick(alive, entropy, all(0));
    first = 0;
    for (int64_t e = 0; e < w->elements; first += w->choices[e], e++)
        for (int64_t f = first; f < first + w->choices[e]; f++) {
            vec found = (F(f) - slope) * p[f] + pick(IS(f), slope, all(0));
            F(f) = pick(alive, found, all(0));
            for (int i = 0; mask && i < LANES; i++)
                if (!mask[f * ROWS + i]) features[f * ROWS + i] = 0.0f;
        }
}

static inline vec log_slope(vec u) { /* u + softplus(-2 u) */
    return u + most(-2.0f * u, all(0)) + log_(1.0f + exp_(-size_of(2.0f * u)));
}

#define HALF_LOG_TAU 0.918938533204672742
#define LN2 0.693147180559945309

static void gaussian(const struct work *w, const struct samples *s, float *features, const float *actions,
                     const float *noise, float share, vec *sums, const float *log_std, vec *by_std) {
    int64_t size = w->elements;
    int squashed = w->log_half_range == w->log_half_range;
    float bonus = w->entropy_coeff * share;
    double constant = HALF_LOG_TAU * size, slopes = squashed ? w->log_half_range + 2 * LN2 * size : 0.0;
    vec logp = all(-constant - slopes), entropy = all(constant + 0.5 * size + slopes);
    for (int64_t a = 0; a < size; a++) {
        float limited = log_std[a] < -10.0f ? -10.0f : log_std[a] > 5.0f ? 5.0f : log_std[a];
        vec u = *(vec *)(actions + a * ROWS), z = (u - F(a)) / expf(limited);
        logp -= limited + 0.5f * z * z;
        entropy += limited;
        if (squashed) {
            logp += 2.0f * log_slope(u);
            entropy -= 2.0f * log_slope(F(a) + *(vec *)(noise + a * ROWS) * expf(limited));
        }
    }
    vec slope = surrogate(w, s, logp, share, sums);
    ints alive = s->live > 0.0f;
    sums[2] += pick(alive, entropy, all(0));
    for (int64_t a = 0; a < size; a++) {
        float limited = log_std[a] < -10.0f ? -10.0f : log_std[a] > 5.0f ? 5.0f : log_std[a], std = expf(limited);
        vec u = *(vec *)(actions + a * ROWS), z = (u - F(a)) / std;
        vec spread = (z * z - 1.0f) * slope - bonus, found = z / std * slope;
        if (squashed) {
            vec noisy = *(vec *)(noise + a * ROWS) * std, pull = tanh_(F(a) + noisy) * (2.0f * bonus);
            found += pull;
            spread += pull * noisy;
        }
        by_std[a] += pick(alive, spread, all(0));
        F(a) = pick(alive, found, all(0));
    }
}

/* Returns the floats that `step` and `act` need. */
int64_t room(const struct work *w) {
    int64_t units = 0, features = w->widths[w->policy_layers];
    for (int64_t l = 0; l < w->policy_layers + w->value_layers + 2; l++) units += w->widths[l];
    return (units + 3 * features + 4 * w->elements + 8) * ROWS;
}

static void columns(const float *from, int64_t width, const int64_t *places, int64_t first, int64_t rows, int64_t padded,
                    float *to) {
    for (int64_t r = 0; r < rows; r++) {
        const float *row = from + (places ? places[r] : first + r) * width;
        for (int64_t k = 0; k < width; k++) to[k * ROWS + r] = row[k];
    }
    for (int64_t k = 0; k < width; k++)
        for (int64_t r = rows; r < padded; r++) to[k * ROWS + r] = 0.0f;
}

static double square_of(const float *x, int64_t count) { /* eight sums at once: one would wait for itself */
    double part[8] = {};
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (int k = 0; k < 8; k++) part[k] += (double)x[i + k] * x[i + k];
    for (; i < count; i++) part[0] += (double)x[i] * x[i];
    return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

/* Takes one optimizer step on `rows` samples, those at `places` or from `first` on; found [7] as `SmallSteps` gives it. */
void step(const struct work *w, const int64_t *places, int64_t first, int64_t rows, const float *noise, float *found) {
    const int64_t *policy = w->widths, *value = w->widths + w->policy_layers + 1;
    int64_t features = policy[w->policy_layers], in = policy[0];
    float *inputs = w->scratch, *made_policy = inputs + in * ROWS, *made_value = made_policy;
    for (int64_t l = 1; l <= w->policy_layers; l++) made_value += policy[l] * ROWS;
    float *series = made_value;
    for (int64_t l = 1; l <= w->value_layers; l++) series += value[l] * ROWS;
    float *actions = series + 5 * ROWS, *noises = actions + w->elements * ROWS, *spare = noises + w->elements * ROWS;
    vec *by_std = (vec *)(spare + features * ROWS);
    uint8_t *mask = (uint8_t *)(by_std + w->elements);
    float share = 1.0 / rows;
    double sums[5] = {};
    int64_t of_policy = 0, total = 0;
    for (int64_t l = 0; l < w->policy_layers; l++) of_policy += policy[l + 1] * (policy[l] + 1);
    for (int64_t i = 0; i < w->parameters; i++) total += w->sizes[i];
    memset(w->gradient, 0, total * sizeof(float));
    for (int64_t begin = 0; begin < rows; begin += ROWS) {
        int64_t some = rows - begin < ROWS ? rows - begin : ROWS, padded = (some + LANES - 1) / LANES * LANES;
        const int64_t *at = places ? places + begin : 0;
        int64_t from = first + begin;
        columns(w->inputs, in, at, from, some, padded, inputs);
        columns(w->logp, 1, at, from, some, padded, series);
        columns(w->values, 1, at, from, some, padded, series + ROWS);
        columns(w->advantages, 1, at, from, some, padded, series + 2 * ROWS);
        columns(w->returns, 1, at, from, some, padded, series + 3 * ROWS);
        for (int64_t r = 0; r < padded; r++) series[4 * ROWS + r] = r < some;
        if (w->gaussian) {
            columns(w->actions, w->elements, at, from, some, padded, actions);
            if (noise) columns(noise, w->elements, 0, begin, some, padded, noises);
        } else
            for (int64_t r = 0; r < padded; r++)
                for (int64_t e = 0; e < w->elements; e++)
                    ((int32_t *)actions)[e * ROWS + r] =
                        r < some ? ((const int64_t *)w->actions)[(at ? at[r] : from + r) * w->elements + e] : 0;
        if (w->mask)
            for (int64_t r = 0; r < padded; r++)
                for (int64_t f = 0; f < features; f++)
                    mask[f * ROWS + r] = r < some ? w->mask[(at ? at[r] : from + r) * features + f] : 1;
        float *const *parameter = w->parameter;
        float *end = forward(w->policy_layers, policy, parameter, w->tanh, padded, inputs, made_policy);
        float *value_end = forward(w->value_layers, value, parameter + 2 * w->policy_layers, w->tanh, padded, inputs, made_value);
        float *outputs = end - features * ROWS, *worth = value_end - ROWS;
        vec lanes[5] = {};
        for (int64_t a = 0; a < (w->gaussian ? w->elements : 0); a++) by_std[a] = all(0);
        for (int64_t r = 0; r < padded; r += LANES) {
            struct samples s = {*(vec *)(series + 4 * ROWS + r), *(vec *)(series + r), *(vec *)(series + ROWS + r),
                                *(vec *)(series + 2 * ROWS + r), *(vec *)(series + 3 * ROWS + r)};
            if (w->gaussian)
                gaussian(w, &s, outputs + r, actions + r, noises + r, share, lanes, parameter[w->parameters - 1], by_std);
            else {
                discrete(w, &s, outputs + r, (int32_t *)actions + r, w->mask ? mask + r : 0, share, lanes, (vec *)spare);
            }
            *(vec *)(worth + r) = by_value(w, &s, *(vec *)(worth + r), share, lanes);
        }
        for (int i = 0; i < 5; i++) sums[i] += sum(lanes[i]);
        backward(w->policy_layers, policy, parameter, w->tanh, padded, inputs, made_policy, w->gradient);
        backward(w->value_layers, value, parameter + 2 * w->policy_layers, w->tanh, padded, inputs, made_value, w->gradient + of_policy);
        if (w->gaussian)
            for (int64_t a = 0; a < w->elements; a++) w->gradient[total - w->elements + a] += sum(by_std[a]);
    }
    float norm = sqrt(square_of(w->gradient, total)), scale = 1.0f;
    if (w->max_norm < INFINITY) {
        scale = (float)w->max_norm / (norm + 1e-6f);
        scale = scale > 1.0f ? 1.0f : scale;
    }
    float *g = w->gradient;
    for (int64_t i = 0; i < w->parameters; g += w->sizes[i], i++) {
        double count = *w->step[i] += 1.0f;
        float *p = w->parameter[i], *m = w->exp_avg[i], *v = w->exp_avg_sq[i];
        float rate = w->lr / (1 - pow(w->beta1, count)), root = sqrt(1 - pow(w->beta2, count));
        float beta1 = w->beta1, beta2 = w->beta2, rest1 = 1 - w->beta1, rest2 = 1 - w->beta2, eps = w->eps;
        for (int64_t k = 0; k < w->sizes[i]; k++) {
            g[k] *= scale;
            m[k] = beta1 * m[k] + rest1 * g[k];
            v[k] = beta2 * v[k] + rest2 * g[k] * g[k];
            p[k] -= rate * m[k] / (sqrtf(v[k]) / root + eps);
        }
    }
    for (int i = 0; i < 5; i++) found[1 + i] = sums[i] / rows;
    found[0] = found[1] + w->vf_coeff * found[2] - w->entropy_coeff * found[3];
    found[6] = norm;
}

/* Writes what the policy's network makes of `rows` inputs to out [rows][features]. */
void infer(const struct work *w, const float *inputs, int64_t rows, float *out) {
    int64_t in = w->widths[0], features = w->widths[w->policy_layers];
    float *made = w->scratch + in * ROWS;
    for (int64_t begin = 0; begin < rows; begin += ROWS) {
        int64_t some = rows - begin < ROWS ? rows - begin : ROWS, padded = (some + LANES - 1) / LANES * LANES;
        columns(inputs, in, 0, begin, some, padded, w->scratch);
        float *end = forward(w->policy_layers, w->widths, w->parameter, w->tanh, padded, w->scratch, made);
        for (int64_t r = 0; r < some; r++)
            for (int64_t f = 0; f < features; f++) out[(begin + r) * features + f] = end[(f - features) * ROWS + r];
    }
}

/* Writes the choices [rows][elements] whose clocks ring first, of one vector of rows; returns the log-probability. */
static vec choose(const struct work *w, float *features, const float *bells, const uint8_t *allowed, int64_t rows,
                  int64_t *chosen) {
    vec total = {};
    int64_t first = 0;
    for (int64_t e = 0; e < w->elements; first += w->choices[e], e++) {
        vec earliest = all(INFINITY), its = {};
        ints best = {};
        log_softmax(features, first, w->choices[e], allowed);
        its = F(first);
        for (int64_t f = first; f < first + w->choices[e]; f++) {
            vec rings = log_(*(vec *)(bells + f * ROWS)) - F(f);
            for (int i = 0; allowed && i < LANES; i++)
                if (!allowed[f * ROWS + i]) rings[i] = INFINITY;
            ints sooner = rings < earliest;
            earliest = pick(sooner, rings, earliest);
            its = pick(sooner, F(f), its);
            best = (sooner & ((ints){} + (int32_t)(f - first))) | (~sooner & best);
        }
        total += its;
        for (int i = 0; i < LANES && i < rows; i++) chosen[i * w->elements + e] = best[i];
    }
    return total;
}

/* Writes mean + std * noise [rows][elements], of one vector of rows; returns the log-probability. */
static vec draw(const struct work *w, const float *features, const float *noise, int64_t rows, float *chosen) {
    const float *log_std = w->parameter[w->parameters - 1];
    int squashed = w->log_half_range == w->log_half_range;
    double constant = HALF_LOG_TAU * w->elements + (squashed ? w->log_half_range + 2 * LN2 * w->elements : 0.0);
    vec logp = all(-constant);
    for (int64_t a = 0; a < w->elements; a++) {
        float limited = log_std[a] < -10.0f ? -10.0f : log_std[a] > 5.0f ? 5.0f : log_std[a], std = expf(limited);
        vec mean = *(const vec *)(features + a * ROWS), u = mean + std * *(const vec *)(noise + a * ROWS);
        vec z = (u - mean) / std;
        logp -= limited + 0.5f * z * z;
        if (squashed) logp += 2.0f * log_slope(u);
        for (int i = 0; i < LANES && i < rows; i++) chosen[i * w->elements + a] = u[i];
    }
    return logp;
}

/* Writes actions [rows][elements], int64_t or float, and their log-probability [rows].
 * noise: clocks [rows][features] of choices, or standard normal numbers [rows][elements]. */
void act(const struct work *w, const float *obs, int64_t rows, const float *noise, const uint8_t *mask, void *chosen,
         float *logp) {
    int64_t in = w->widths[0], size = w->widths[w->policy_layers], drawn = w->gaussian ? w->elements : size;
    float *made = w->scratch + in * ROWS;
    for (int64_t begin = 0; begin < rows; begin += ROWS) {
        int64_t some = rows - begin < ROWS ? rows - begin : ROWS, padded = (some + LANES - 1) / LANES * LANES;
        columns(obs, in, 0, begin, some, padded, w->scratch);
        for (int64_t k = 0; w->shift && k < in; k++)
            for (int64_t r = 0; r < padded; r += LANES) {
                vec *x = (vec *)(w->scratch + k * ROWS + r), moved = (*x - w->shift[k]) * w->scale[k];
                *x = least(most(moved, all(-w->obs_limit)), all(w->obs_limit));
            }
        float *outputs = forward(w->policy_layers, w->widths, w->parameter, w->tanh, padded, w->scratch, made) - size * ROWS;
        float *random = outputs + size * ROWS;
        uint8_t *allowed = (uint8_t *)(random + drawn * ROWS);
        columns(noise, drawn, 0, begin, some, padded, random);
        for (int64_t r = 0; mask && r < padded; r++)
            for (int64_t f = 0; f < size; f++) allowed[f * ROWS + r] = r < some ? mask[(begin + r) * size + f] : 1;
        for (int64_t r = 0; r < padded; r += LANES) {
            int64_t place = (begin + r) * w->elements;
            vec found = w->gaussian ? draw(w, outputs + r, random + r, some - r, (float *)chosen + place)
                                    : choose(w, outputs + r, random + r, mask ? allowed + r : 0, some - r,
                                             (int64_t *)chosen + place);
            for (int i = 0; i < LANES && r + i < some; i++) logp[begin + r + i] = found[i];
        }
    }
}
