/*
 * JavaScript whose whole heap is durable: `vmsync run --wasi --map heap=STORE quickjs.wasm -- [SCRIPT...]`
 *
 * QuickJS allocates from a region. Each SCRIPT (or each line of standard input, if none is given) is a transaction: what
 * it changes anywhere, in globals, closures, maps, is durable when its value is printed. One that throws is undone as if it
 * had never run. The next run goes on with the same globals; so does one after a kill.
 *
 * A heap belongs to the module that made it, for it holds numbers of functions and addresses of constants.
 * Exit 1: a script has thrown; 2: the heap could not be used.
 */
#include <quickjs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vmsync.h>

#include "heap.h"

#define HEAP_BYTES ((size_t)64 << 20)

/* Begins the region; all 0 when the object is new. */
struct root {
    uint64_t module;
    JSRuntime *runtime;
    JSContext *context;
    struct heap heap;
};

extern unsigned char __data_end;

static void *js_alloc(void *heap, size_t size)
{
    return heap_alloc(heap, size);
}

static void *js_zeroed(void *heap, size_t count, size_t size)
{
    size_t bytes;
    void *block = __builtin_mul_overflow(count, size, &bytes) ? NULL : heap_alloc(heap, bytes);
    return block == NULL ? NULL : memset(block, 0, bytes);
}

static void js_free_block(void *heap, void *block)
{
    heap_free(heap, block);
}

static void *js_resize(void *heap, void *block, size_t size)
{
    if (size > 0)
        return heap_realloc(heap, block, size);
    heap_free(heap, block);
    return NULL;
}

static const JSMallocFunctions allocator = {js_zeroed, js_alloc, js_free_block, js_resize, heap_usable};

/* What differs between one build of this module and another, as far as a program can see. */
static uint64_t module_identity(void)
{
    const uint64_t parts[] = {(uintptr_t)&__data_end,      (uintptr_t)&__global_base, (uintptr_t)&allocator,
                              (uintptr_t)JS_NewRuntime2,   (uintptr_t)JS_Eval,        (uintptr_t)js_zeroed,
                              (uintptr_t)QJS_VERSION_MAJOR, QJS_VERSION_MINOR,        QJS_VERSION_PATCH};
    uint64_t hash = 14695981039346656037u;
    for (size_t index = 0; index < sizeof parts / sizeof *parts; ++index)
        hash = (hash ^ parts[index]) * 1099511628211u;
    return hash;
}

static int fail(const char *what, kern_return_t kr)
{
    fprintf(stderr, "%s: %s\n", what, vms_strerror(kr));
    return 2;
}

/* Makes the heap, or goes on with the one that is there. */
static int open_heap(struct root *root, const vms_region_t *region)
{
    if (root->module == 0) {
        heap_init(&root->heap, root + 1, (char *)region->data + region->size);
        root->runtime = JS_NewRuntime2(&allocator, &root->heap);
        root->context = root->runtime == NULL ? NULL : JS_NewContext(root->runtime);
        if (root->context == NULL)
            return fail("new heap", KERN_RESOURCE_SHORTAGE);
        root->module = module_identity();
    } else if (root->module != module_identity()) {
        fprintf(stderr, "the heap was made by another build of this module: use that one, or another store\n");
        return 2;
    }
    JS_UpdateStackTop(root->runtime);
    return 0;
}

/* The value, or what was thrown, as text to be freed. */
static char *show(JSContext *context, JSValue value)
{
    const char *text = JS_ToCString(context, value);
    char *copy = strdup(text == NULL ? "?" : text);
    JS_FreeCString(context, text);
    return copy;
}

/* Runs a script and the jobs that it has started. */
static bool evaluate(struct root *root, const char *script, char **said)
{
    JSContext *context = root->context;
    JSValue value = JS_Eval(context, script, strlen(script), "script", JS_EVAL_TYPE_GLOBAL);
    bool thrown = JS_IsException(value);
    JSContext *of_job;
    int jobs = 1;
    while (!thrown && (jobs = JS_ExecutePendingJob(root->runtime, &of_job)) > 0)
        ;
    thrown |= jobs < 0;
    if (!thrown) {
        *said = show(context, value);
    } else {
        JSValue error = JS_GetException(context);
        *said = show(context, error);
        JS_FreeValue(context, error);
    }
    JS_FreeValue(context, value);
    return !thrown;
}

/* 0, 1 where the script has thrown, or 2. */
static int transact(struct root *root, vms_region_t *region, const char *script)
{
    char *said;
    bool done = evaluate(root, script, &said);
    kern_return_t kr = done ? vms_flush(region) : vms_undo(region);
    if (kr != KERN_SUCCESS)
        return fail(done ? "flush" : "undo", kr);
    fprintf(done ? stdout : stderr, "%s\n", said);
    fflush(stdout);
    free(said);
    return done ? 0 : 1;
}

int main(int argc, char **argv)
{
    vms_region_t region;
    kern_return_t kr = vms_map(&region, "heap", HEAP_BYTES);
    if (kr != KERN_SUCCESS)
        return fail("map", kr);
    struct root *root = region.data;
    int worst = open_heap(root, &region);
    if (worst != 0)
        return worst;
    kr = vms_flush(&region);
    if (kr != KERN_SUCCESS)
        return fail("flush", kr);
    for (int index = 1; index < argc && worst < 2; ++index) {
        int result = transact(root, &region, argv[index]);
        worst = result > worst ? result : worst;
    }
    char *line = NULL;
    size_t room = 0;
    while (argc == 1 && worst < 2 && getline(&line, &room, stdin) > 0) {
        int result = transact(root, &region, line);
        worst = result > worst ? result : worst;
    }
    free(line);
    return worst;
}
