/* map.c - open addressing with linear probing, at most half full. */
#include "text/map.h"

struct fg_strslot {
    fg_str key;
    uint32_t hash;
    int32_t value; /* -1: empty */
};

struct fg_intslot {
    uint64_t key; /* plus 1; 0: empty */
    uint64_t value;
};

static size_t
room(size_t expected)
{
    size_t cap = 16;
    while (cap < expected * 2 && cap < SIZE_MAX / 4)
        cap *= 2;
    return cap;
}

/* ---- strings ---------------------------------------------------------------------- */

fg_strmap
fg_strmap_new(fg_arena *a, size_t expected)
{
    fg_strmap m = {.a = a, .cap = room(expected)};

    m.slot = FG_NEWN(a, struct fg_strslot, m.cap);
    for (size_t i = 0; i < m.cap; i++)
        m.slot[i].value = -1;
    return m;
}

static struct fg_strslot *
find(const fg_strmap *m, fg_str key, uint32_t hash)
{
    size_t i = hash & (m->cap - 1);

    while (m->slot[i].value >= 0 &&
           (m->slot[i].hash != hash || !fg_str_same(m->slot[i].key, key)))
        i = (i + 1) & (m->cap - 1);
    return &m->slot[i];
}

void
fg_strmap_set(fg_strmap *m, fg_str key, int32_t value)
{
    if (m->n * 2 >= m->cap) {
        fg_strmap bigger = fg_strmap_new(m->a, m->cap);
        for (size_t i = 0; i < m->cap; i++)
            if (m->slot[i].value >= 0)
                *find(&bigger, m->slot[i].key, m->slot[i].hash) = m->slot[i];
        bigger.n = m->n;
        *m = bigger;
    }
    uint32_t hash = (uint32_t)fg_hash(key.s, key.n, 0);
    struct fg_strslot *s = find(m, key, hash);
    m->n += s->value < 0;
    *s = (struct fg_strslot){key, hash, value};
}

int32_t
fg_strmap_get(const fg_strmap *m, fg_str key)
{
    return find(m, key, (uint32_t)fg_hash(key.s, key.n, 0))->value;
}

/* ---- numbers ---------------------------------------------------------------------- */

fg_intmap
fg_intmap_new(fg_arena *a, size_t expected)
{
    fg_intmap m = {.a = a, .cap = room(expected)};

    m.slot = FG_NEWN(a, struct fg_intslot, m.cap);
    return m;
}

static struct fg_intslot *
find_int(const fg_intmap *m, uint64_t key)
{
    size_t i = (size_t)((key * 0x9e3779b97f4a7c15u) >> 20) & (m->cap - 1);

    while (m->slot[i].key && m->slot[i].key != key)
        i = (i + 1) & (m->cap - 1);
    return &m->slot[i];
}

void
fg_intmap_set(fg_intmap *m, uint64_t key, uint64_t value)
{
    if (m->n * 2 >= m->cap) {
        fg_intmap bigger = fg_intmap_new(m->a, m->cap);
        for (size_t i = 0; i < m->cap; i++)
            if (m->slot[i].key)
                *find_int(&bigger, m->slot[i].key) = m->slot[i];
        bigger.n = m->n;
        *m = bigger;
    }
    struct fg_intslot *s = find_int(m, key + 1);
    m->n += !s->key;
    *s = (struct fg_intslot){key + 1, value};
}

bool
fg_intmap_get(const fg_intmap *m, uint64_t key, uint64_t *value)
{
    const struct fg_intslot *s = find_int(m, key + 1);

    *value = s->value;
    return s->key != 0;
}

/* ---- prefixes --------------------------------------------------------------------- */

static uint32_t
new_node(fg_trie *t)
{
    FG_PUSH(t->step.a, t->value, t->n, t->cap) = -1;
    return (uint32_t)t->n - 1;
}

fg_trie
fg_trie_new(fg_arena *a, size_t expected)
{
    fg_trie t = {.step = fg_intmap_new(a, expected)};

    new_node(&t);
    return t;
}

bool
fg_trie_step(const fg_trie *t, uint32_t *node, unsigned char byte)
{
    uint64_t next;

    if (!fg_intmap_get(&t->step, (uint64_t)*node << 8 | byte, &next))
        return false;
    *node = (uint32_t)next;
    return true;
}

void
fg_trie_add(fg_trie *t, fg_str key, int32_t value)
{
    uint32_t node = 0;

    if (!key.n)
        return;
    t->first[(unsigned char)key.s[0]] = true;
    for (size_t i = 0; i < key.n; i++) {
        uint32_t from = node;
        if (!fg_trie_step(t, &node, (unsigned char)key.s[i])) {
            node = new_node(t);
            fg_intmap_set(&t->step, (uint64_t)from << 8 | (unsigned char)key.s[i], node);
        }
    }
    t->value[node] = value;
}
