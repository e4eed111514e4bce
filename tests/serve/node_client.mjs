// What programs in JavaScript do with the `openai` package, against the server of test_node.py:
//   node node_client.mjs ADDRESS TOKEN
// Prints the checks that passed, one a line; ends with an error at the first that fails.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [address, token] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: token, maxRetries: 0, timeout: 20_000 });
const hello = { model: "m", messages: [{ role: "user", content: "Hello" }] };
const tool = {
  type: "function",
  function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } },
};

const checks = {
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.deepEqual(ids, ["m", "other"]);
    assert.equal((await client.models.retrieve("other")).id, "other");
  },
  async chat() {
    const made = await client.chat.completions.create(hello);
    assert.equal(made.choices[0].message.content, "one two three");
    assert.equal(made.choices[0].finish_reason, "stop");
    assert.equal(made.usage.completion_tokens, 3);
  },
  async stream() {
    let text = "", usage;
    const options = { stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await client.chat.completions.create({ ...hello, ...options })) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, "one two three");
    assert.equal(usage.completion_tokens, 3);
  },
  async stream_helper() {
    const runner = client.chat.completions.stream(hello);
    assert.equal(await runner.finalContent(), "one two three");
    assert.equal((await runner.finalChatCompletion()).choices[0].finish_reason, "stop");
  },
  async abort() {
    const stream = await client.chat.completions.create({ ...hello, stream: true, ignore_eos: true });
    for await (const _ of stream) break; // closes the connection
    assert.ok(stream.controller.signal.aborted);
  },
  async several() {
    const made = await client.chat.completions.create({ ...hello, n: 3 });
    assert.deepEqual(made.choices.map((choice) => choice.index), [0, 1, 2]);
  },
  async logprobs() {
    const made = await client.chat.completions.create({ ...hello, logprobs: true, top_logprobs: 2 });
    const [first] = made.choices[0].logprobs.content;
    assert.equal(first.top_logprobs.length, 2);
    assert.equal(new TextDecoder().decode(Uint8Array.from(first.bytes)), first.token);
  },
  async tools() {
    const asked = { ...hello, messages: [{ role: "user", content: "tools" }], tools: [tool] };
    const call = (await client.chat.completions.create(asked)).choices[0].message.tool_calls[0];
    assert.equal(call.function.name, "weather");
    assert.deepEqual(JSON.parse(call.function.arguments), { city: "Oslo" });
    const final = await client.chat.completions.stream(asked).finalChatCompletion();
    assert.deepEqual(final.choices[0].message.tool_calls[0].function.arguments, call.function.arguments);
    assert.equal(final.choices[0].finish_reason, "tool_calls");
  },
  async run_tools() {
    const run = client.chat.completions.runTools({
      model: "m",
      messages: [{ role: "user", content: "tools" }],
      tools: [{ ...tool, function: { ...tool.function, parse: JSON.parse, function: ({ city }) => `rain in ${city}` } }],
    });
    assert.equal(await run.finalContent(), "It says: rain in Oslo");
  },
  async json_schema() {
    const schema = { type: "object", properties: { a: { type: "integer" } }, required: ["a"] };
    const response_format = { type: "json_schema", json_schema: { name: "a", schema } };
    const made = await client.chat.completions.parse({ ...hello, response_format });
    assert.equal(made.choices[0].message.content, '{"a": 1}');
  },
  async completions() {
    const made = await client.completions.create({ model: "m", prompt: ["a", "b"], max_tokens: 2 });
    assert.deepEqual(made.choices.map((choice) => choice.text), ["one two", "one two"]);
    assert.equal(made.choices[0].finish_reason, "length");
  },
  async embeddings() {
    const made = await client.embeddings.create({ model: "m", input: ["a", "b"] });
    assert.deepEqual(made.data[0].embedding.map((value) => Math.round(10 * value)), [6, 8]);
  },
  async errors() {
    const wrong = new OpenAI({ baseURL: `${address}/v1`, apiKey: "no", maxRetries: 0 });
    await assert.rejects(wrong.models.list(), OpenAI.AuthenticationError);
    await assert.rejects(client.chat.completions.create({ ...hello, model: "x" }), OpenAI.NotFoundError);
    const bad = client.chat.completions.create({ ...hello, temperature: -1, stream: true });
    await assert.rejects(bad, (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature");
  },
};

for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
  } catch (error) {
    console.error(`${name}: ${error.stack}`);
    process.exit(1);
  }
  console.log(name);
}
process.exit(0); // without waiting for idle connections
