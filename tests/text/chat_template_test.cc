#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/sha256.h"

namespace valuescope::text {
namespace {

using testing::HasSubstr;

std::unique_ptr<ChatTemplate> CompileOrDie(const std::string& source) {
  auto chat_template = ChatTemplate::Compile(source, {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
  EXPECT_TRUE(chat_template.ok()) << chat_template.status();
  return *std::move(chat_template);
}

const std::vector<ChatMessage>& Hello() {
  static const auto* const messages = new std::vector<ChatMessage>{{"user", "hello"}};
  return *messages;
}

absl::StatusOr<std::string> Render(const std::string& source, const std::string& arguments = "",
                                   const std::vector<ChatMessage>& messages = Hello()) {
  const auto chat_template =
      ChatTemplate::Compile(source, {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
  if (!chat_template.ok()) return chat_template.status();
  return (*chat_template)
      ->Render(messages,
               {.template_arguments = arguments, .now = absl::FromUnixSeconds(1'700'000'000)});
}

std::string RenderOrDie(const std::string& source, const std::string& arguments = "",
                        const std::vector<ChatMessage>& messages = Hello()) {
  const auto text = Render(source, arguments, messages);
  EXPECT_TRUE(text.ok()) << source << ": " << text.status();
  return text.value_or("");
}

constexpr char kChatMl[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nDefault.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

TEST(ChatTemplate, TellsAnEmptySystemMessageFromNone) {
  EXPECT_EQ(RenderOrDie(kChatMl),
            "<|im_start|>system\nDefault.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n"
            "<|im_start|>assistant\n");
  EXPECT_EQ(RenderOrDie(kChatMl, "", {{"system", ""}, {"user", "hello"}}),
            "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n"
            "<|im_start|>assistant\n");
}

TEST(ChatTemplate, OpensTheAssistantTurnOnlyWhenAsked) {
  const auto text = CompileOrDie(kChatMl)->Render(Hello(), {.add_generation_prompt = false});
  ASSERT_TRUE(text.ok());
  EXPECT_FALSE(absl::StrContains(*text, "assistant"));
}

TEST(ChatTemplate, PassesContentUnchanged) {
  const std::string nul("a\0b", 3);
  for (const std::string& content : {std::string(), nul, std::string("<|im_end|>{{ 1 }}{% raw %}"),
                                     std::string("<a> & 'b' \"c\""),
                                     std::string("\U0001F469\u200D\U0001F467 e\u0301 \u202E\u05E9"),
                                     std::string(100'000, 'a'), std::string(" \n ")}) {
    EXPECT_EQ(RenderOrDie("{{ messages[0].content }}|", "", {{"user", content}}), content + "|");
  }
}

TEST(ChatTemplate, TrimsBlocksAsTransformersDoes) {
  EXPECT_EQ(RenderOrDie("a\n  {% if true %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
}

TEST(ChatTemplate, WritesJsonAsPythonDoes) {
  const std::string arguments =
      R"({"t": {"b": [1, 2.0, 1e20, 1e-7, true, null, "<é'\"\n\u0001>"], "a": {}, "e": []}})";
  EXPECT_EQ(RenderOrDie("{{ t | tojson }}", arguments),
            R"({"b": [1, 2.0, 1e+20, 1e-07, true, null, "<é'\"\n\u0001>"], "a": {}, "e": []})");
  EXPECT_EQ(RenderOrDie("{{ t | tojson(indent=2) }}", R"({"t": {"b": [1, {"c": "d"}]}})"),
            "{\n  \"b\": [\n    1,\n    {\n      \"c\": \"d\"\n    }\n  ]\n}");
}

TEST(ChatTemplate, WritesJsonInTheFormAskedFor) {
  EXPECT_EQ(RenderOrDie("{{ t | tojson(separators=(',', ':'), sort_keys=true) }}",
                        R"({"t": {"b": [1, 2], "a": null}})"),
            R"({"a":null,"b":[1,2]})");
}

TEST(ChatTemplate, PrintsValuesAsPythonDoes) {
  EXPECT_EQ(
      RenderOrDie("{{ true }} {{ none }} {{ 1.0 }} {{ [1, 'a', \"it's\", false] }} {{ nope }}|"),
      "True None 1.0 [1, 'a', \"it's\", False] |");
}

TEST(ChatTemplate, HasWhatTemplatesUse) {
  EXPECT_EQ(RenderOrDie("{{ bos_token }}{{ eos_token }}"), "<s></s>");
  EXPECT_EQ(RenderOrDie("{% set ns = namespace(n=0) %}{% for i in range(9) %}{% if i == 3 %}"
                        "{% continue %}{% endif %}{% if i > 5 %}{% break %}{% endif %}"
                        "{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}"),
            "12");
  EXPECT_EQ(RenderOrDie("{{ ' Ab '.strip().upper() }}{{ 'a,b'.split(',')[-1] }}"
                        "{{ 'abc'.removeprefix('a') }}{{ {'k': 'v'}.get('k') }}{{ 'ab'.count('') "
                        "}}{{ ''.isdigit() }}"
                        "{% for k, v in {'x': 1}.items() %}{{ k }}{{ v }}{% endfor %}"
                        "{{ messages[::-1][0]['role'] }}{{ 'llo' in messages[0].content }}"),
            "ABbbcv3Falsex1userTrue");
  EXPECT_EQ(RenderOrDie("{% macro m(a, b='z') %}{{ a }}{{ b }}{% endmacro %}{{ m('y') }}"), "yz");
}

TEST(ChatTemplate, TakesTheTimeFromItsCaller) {
  EXPECT_EQ(RenderOrDie("{{ strftime_now('%d %b %Y %H:%M') }}"), "14 Nov 2023 22:13");
}

TEST(ChatTemplate, ReadsGenerationMarks) {
  EXPECT_EQ(RenderOrDie("a{%- generation -%} b {%- endgeneration %} c {% generation %}d"
                        "{% endgeneration %}"),
            "ab c d");
}

TEST(ChatTemplate, GivesArgumentsToTheTemplate) {
  EXPECT_EQ(RenderOrDie("{% if enable_thinking is defined and enable_thinking is false %}off"
                        "{% endif %}",
                        R"({"enable_thinking": false})"),
            "off");
}

TEST(ChatTemplate, RefusesArgumentsThatAreNoObjectOrOverrideMessages) {
  for (const std::string& arguments :
       {std::string("[]"), std::string("{"), std::string("1"), std::string("{\"a\": \"\xff\"}"),
        R"({"a":)" + std::string(100'000, '['), std::string(R"({"messages": []})"),
        std::string(R"({"add_generation_prompt": true})")}) {
    const absl::Status status = Render("x", arguments).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << arguments.substr(0, 40);
  }
  EXPECT_EQ(DetailsOf(Render("x", R"({"messages": []})").status()).field, "template_arguments");
}

TEST(ChatTemplate, ReturnsWhatTheTemplateRaised) {
  const auto text = Render(
      "{% macro m() %}{{ raise_exception('System role not supported') }}"
      "{% endmacro %}{{ m() }}");
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
  const ErrorDetails details = DetailsOf(text.status());
  EXPECT_EQ(details.reason, "CHAT_TEMPLATE_RAISED");
  EXPECT_EQ(details.field, "messages");
  EXPECT_EQ(details.description, "System role not supported");
}

TEST(ChatTemplate, RefusesMoreThanAChatMayHold) {
  const auto chat_template = CompileOrDie("{{ messages | length }}");
  const std::vector<ChatMessage> most(kMaxMessages, {"user", ""});
  EXPECT_EQ(*chat_template->Render(most, {}), "4096");
  const absl::Status many =
      chat_template->Render(std::vector<ChatMessage>(kMaxMessages + 1), {}).status();
  EXPECT_EQ(DetailsOf(many).field, "messages");
  EXPECT_THAT(std::string(many.message()), HasSubstr("are 4097, allowed are 1 to 4096"));
  const std::vector<ChatMessage> longest = {{"user", std::string(kMaxChatBytes - 4, 'a')}};
  EXPECT_EQ(*chat_template->Render(longest, {}), "1");
  const absl::Status large =
      chat_template->Render({longest[0], {"user", ""}}, {.fold_system_into_user = true}).status();
  EXPECT_EQ(DetailsOf(large).field, "messages");
  EXPECT_THAT(std::string(large.message()), HasSubstr("allowed are at most 4194304"));
}

TEST(ChatTemplate, RefusesNoMessagesAndTextThatIsNotUtf8) {
  EXPECT_EQ(Render("x", "", {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Render("x", "", {{"user", "\xc3"}}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ChatTemplate, FoldsTheSystemMessageWhenAsked) {
  const auto chat_template =
      CompileOrDie("{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}");
  const RenderOptions fold = {.fold_system_into_user = true};
  EXPECT_EQ(*chat_template->Render({{"system", "S"}, {"user", "U"}, {"user", "V"}}, fold),
            "[user:S\n\nU][user:V]");
  EXPECT_EQ(*chat_template->Render({{"system", ""}, {"user", "U"}}, fold), "[user:U]");
  EXPECT_FALSE(chat_template->Render({{"system", "S"}}, fold).ok());
}

TEST(ChatTemplate, FindsTheKeysThatAMessageHas) {
  const ChatMessage call{.role = "assistant",
                         .content_kind = ContentKind::kNone,
                         .more = {{.name = "tool_calls",
                                   .value = R"([{"function": {"z": 1, "a": 2.50}}])",
                                   .is_json = true}}};
  const ChatMessage bare{.role = "assistant", .content_kind = ContentKind::kAbsent};
  const ChatMessage parts{.role = "user",
                          .content_kind = ContentKind::kParts,
                          .parts = {"a \"b\"", "\u00e9"},
                          .more = {{.name = "name", .value = "bob"}}};
  EXPECT_EQ(RenderOrDie("{{ messages }}", "", {call, bare, parts}),
            "[{'role': 'assistant', 'content': None, 'tool_calls': [{'function': {'z': 1, 'a': 2.5"
            "}}]}, {'role': 'assistant'}, {'role': 'user', 'content': [{'type': 'text', 'text': "
            "'a \"b\"'}, {'type': 'text', 'text': '\u00e9'}], 'name': 'bob'}]");
}

TEST(ChatTemplate, FoldsTheSystemMessageIntoEveryKindOfContent) {
  const auto chat_template = CompileOrDie("{{ messages | tojson }}");
  const RenderOptions fold = {.fold_system_into_user = true};
  const ChatMessage system{
      .role = "system", .content_kind = ContentKind::kParts, .parts = {"S", "T"}};
  EXPECT_EQ(
      *chat_template->Render(
          {system, {.role = "user", .content_kind = ContentKind::kParts, .parts = {"U", "V"}}},
          fold),
      R"([{"role": "user", "content": [{"type": "text", "text": "ST\n\nU"}, )"
      R"({"type": "text", "text": "V"}]}])");
  EXPECT_EQ(
      *chat_template->Render({system, {.role = "user", .content_kind = ContentKind::kNone}}, fold),
      R"([{"role": "user", "content": "ST"}])");
}

TEST(ChatTemplate, CountsEverythingThatAMessageHolds) {
  const auto chat_template = CompileOrDie("x");
  const std::string half(kMaxChatBytes / 2, 'a');
  const ChatMessage large{.role = "user",
                          .content_kind = ContentKind::kParts,
                          .parts = {half},
                          .more = {{.name = "name", .value = half}}};
  EXPECT_EQ(DetailsOf(chat_template->Render({large}, {}).status()).field, "messages");
  const ChatMessage many{.role = "user",
                         .content_kind = ContentKind::kParts,
                         .parts = std::vector<std::string>(kMaxChatParts + 1)};
  EXPECT_THAT(std::string(chat_template->Render({many}, {}).status().message()),
              HasSubstr("at most 4096"));
}

TEST(ChatTemplate, RefusesJsonOfMessagesThatIsNone) {
  for (const char* json : {"", "{", "[1,]", "NaN", "{\"a\": 1, \"a\": 2}", "1 2", "\"\\ud800\""}) {
    const ChatMessage message{.role = "user",
                              .more = {{.name = "x", .value = json, .is_json = true}}};
    EXPECT_EQ(DetailsOf(Render("x", "", {message}).status()).field, "messages") << json;
  }
}

TEST(ChatTemplate, IsNamedByTheDigestOfItsSource) {
  EXPECT_EQ(CompileOrDie("abc")->digest(), Sha256Hex("abc"));
}

TEST(ChatTemplate, RefusesSourcesThatDoNotCompile) {
  for (const std::string& source :
       {std::string("{% if %}"), std::string("{{ "), std::string("{% nosuch %}"),
        std::string("\xff"), std::string("{{ x | nosuchfilter }}").substr(0, 10),
        "{{ " + std::string(5'000, '(')}) {
    const auto chat_template = ChatTemplate::Compile(source, {});
    EXPECT_EQ(chat_template.status().code(), absl::StatusCode::kInvalidArgument) << source;
  }
}

// Nothing a template does may stop the process or hold a request for long.
class HostileTemplate : public testing::TestWithParam<const char*> {};

// In a process of its own, as some of them cost a thread.
TEST_P(HostileTemplate, EndsSoonWithAnError) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto run = [] {
    const absl::Time start = absl::Now();
    const absl::Status status = Render(GetParam()).status();
    const bool soon = absl::Now() - start < absl::Seconds(30);
    std::_Exit(!status.ok() && !status.message().empty() && soon ? 0 : 1);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

INSTANTIATE_TEST_SUITE_P(
    Loops, HostileTemplate,
    testing::Values(
        "{% for i in range(10**9) %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ ([0] * 10**15) | max }}", "{{ ([0] * 10**15) | list | length }}",
        "{{ range(99999) | batch(1) | map('string') | join * 10**9 }}"));

// One comparison, one membership test: a step that takes for ever.
INSTANTIATE_TEST_SUITE_P(
    EndlessSteps, HostileTemplate,
    testing::Values("{% set ns = namespace(a=(1,)) %}{% for i in range(60) %}"
                    "{% set ns.a = (ns.a, ns.a) %}{% endfor %}{{ {}[ns.a] }}",
                    "{% set a = 'x' * 16000000 %}{% set c = 'x' * 15999999 ~ 'y' %}"
                    "{{ c in [a] * 1000000 }}"));

INSTANTIATE_TEST_SUITE_P(
    Sizes, HostileTemplate,
    testing::Values(
        "{{ 'a' * 10**9 }}", "{{ 'a' * 90000000 }}", "{{ ('a' * 90000000) ~ ('a' * 90000000) }}",
        "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}"
        "{% endfor %}{{ ns.s | length }}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}"
        "{% endfor %}{{ ns.s | list }}",
        "{{ 'x' | indent(10**12) }}", "{{ '%1000000000000d' | format(1) }}",
        "{{ '{:1000000000000}'.format(1) }}", "{{ [1] | batch(10**12, 0) | list }}",
        "{{ [1] | tojson(indent=10**12) }}", "{{ 'a'.ljust(10**12) }}", "{{ 'a'.rjust(10**12) }}",
        "{{ 'a'.center(10**12) }}", "{{ '1'.zfill(10**12) }}", "{{ 'a' | center(10**12) }}",
        "{{ ('a' * 1000000).replace('a', 'b' * 1000) | wordcount }}",
        "{{ 'a'.ljust(9000000000000000000, '\u00e9') }}", "{{ 1 | round(10**30) }}",
        "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
        "{% set x %}{% for i in range(99999) %}{{ 'a' * 10000 }}{% endfor %}{% endset %}{{ x }}",
        "{{ strftime_now('%1000000d') }}"));

INSTANTIATE_TEST_SUITE_P(
    Depths, HostileTemplate,
    testing::Values(
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set ns = namespace(x=1) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}"
        "{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=1) %}{% for i in range(90000) %}{% set ns.x = {'a': ns.x} %}"
        "{% endfor %}{{ ns.x | tojson }}",
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
        "{% for i in [1] recursive %}{{ loop([i]) }}{% endfor %}", "{% include 'chat_template' %}",
        "{% extends 'chat_template' %}", "{% import 'chat_template' as m %}"));

INSTANTIATE_TEST_SUITE_P(Mistakes, HostileTemplate,
                         testing::Values("{{ 1 // 0 }}", "{{ nope.attribute }}",
                                         "{{ messages.append(1) }}", "{{ nofunction() }}",
                                         "{{ 'a' | nofilter }}", "{{ undefined | tojson }}",
                                         "{{ strftime_now('%\xc3\xa9\0') }}{{ 1 + 'a' }}",
                                         "{% include '/etc/passwd' %}",
                                         "{{ messages[0].__class__.__mro__ }}"));

// The deepest values that fuel allows are built, written, compared and dropped without touching the
// end of the stack.
TEST(ChatTemplate, SurvivesTheDeepestValues) {
  const std::string nest = absl::StrCat(std::string(60, '['), "ns.x", std::string(60, ']'));
  const std::string build =
      absl::StrCat("{% set ns = namespace(x=1, y=1) %}{% for i in range(10000) %}",
                   "{% set ns.x = ", nest, " %}{% endfor %}");
  EXPECT_EQ(RenderOrDie(build + "done"), "done");
  EXPECT_FALSE(Render(build + "{{ ns.x ~ '' }}{{ ns.x | tojson }}").ok());
  EXPECT_EQ(RenderOrDie(build + "{% set ns.y = ns.x %}{{ ns.x == ns.y }}"), "True");
}

class DeepSource : public testing::TestWithParam<std::pair<const char*, const char*>> {};

// Whatever the compiler says, it says it soon, and what compiles can be rendered or refused.
TEST_P(DeepSource, DoesNotOverflowTheStack) {
  const auto& [start, unit] = GetParam();
  std::string source = start;
  while (source.size() < 1'000'000) source += unit;
  const absl::Time before = absl::Now();
  Render(source + (source[1] == '{' ? " }}" : "{% endif %}")).IgnoreError();
  EXPECT_LT(absl::Now() - before, absl::Seconds(30));
}

INSTANTIATE_TEST_SUITE_P(Chains, DeepSource,
                         testing::Values(std::pair{"{{ a", "+a"}, std::pair{"{{ a", "|a"},
                                         std::pair{"{{ a", ".a"}, std::pair{"{{ a", "[0]"},
                                         std::pair{"{{ a", "()"}, std::pair{"{{ a", " if a"},
                                         std::pair{"{{ 1", "+1"}, std::pair{"{% raw %}", "{%"},
                                         std::pair{"{% if a %}", "{% elif a %}"}));
INSTANTIATE_TEST_SUITE_P(Nests, DeepSource,
                         testing::Values(std::pair{"{{ ", "not "}, std::pair{"{{ ", "-"},
                                         std::pair{"{{ ", "("}, std::pair{"{{ ", "["},
                                         std::pair{"{{ ", "{1:"}, std::pair{"{{ ", "a("},
                                         std::pair{"{{ ", "a if "},
                                         std::pair{"{% if a %}", "{% if a %}"},
                                         std::pair{"{% if a %}", "{% for a in b %}"},
                                         std::pair{"{% if a %}", "{% set a %}"}));

TEST(ChatTemplate, IsNotRunAgainAfterExceedingItsMemory) {
  const auto chat_template = CompileOrDie(
      "{% if messages[0].content == 'bomb' %}{% set ns = namespace(s=[]) %}"
      "{% for i in range(9999) %}{% set ns.s = [ns.s, 'ab' * 50000] %}{% endfor %}{% endif %}"
      "fine");
  EXPECT_EQ(*chat_template->Render(Hello(), {}), "fine");
  const absl::Status bomb = chat_template->Render({{"user", "bomb"}}, {}).status();
  EXPECT_EQ(DetailsOf(bomb).reason, "CHAT_TEMPLATE_DISABLED");
  EXPECT_EQ(DetailsOf(chat_template->Render(Hello(), {}).status()).reason,
            "CHAT_TEMPLATE_DISABLED");
  EXPECT_EQ(RenderOrDie("others still work"), "others still work");
}

std::string ReasonOf(const absl::StatusOr<std::string>& text) {
  return DetailsOf(text.status()).reason;
}

TEST(ChatTemplate, StillRunsAfterAValueThatDoublesIsRefused) {
  const auto chat_template = CompileOrDie(
      "{% if messages[0].content == 'fine' %}fine{% else %}"
      "{% set ns = namespace(s='ab', l=['ab']) %}{% for i in range(60) %}"
      "{% if messages[0].content == 'text' %}{% set ns.s = ns.s ~ ns.s %}"
      "{% else %}{% set ns.l = ns.l + ns.l %}{% endif %}{% endfor %}{% endif %}");
  for (const char* kind : {"text", "list"}) {
    const absl::Status refused = chat_template->Render({{"user", kind}}, {}).status();
    EXPECT_EQ(DetailsOf(refused).field, "messages") << refused;
    EXPECT_THAT(refused.message(), HasSubstr(absl::StrCat("the ", kind, " is too long")));
    EXPECT_EQ(*chat_template->Render({{"user", "fine"}}, {}), "fine");
  }
}

// Within one step too: values that share their parts are small and compare for ever.
TEST(ChatTemplate, StillRunsAfterOneStepTakesItsTime) {
  const auto chat_template = CompileOrDie(
      "{% if messages[0].content == 'slow' %}{% set ns = namespace(a=(1,), b=(1,)) %}"
      "{% for i in range(60) %}{% set ns.a = (ns.a, ns.a) %}{% set ns.b = (ns.b, ns.b) %}"
      "{% endfor %}{{ ns.a == ns.b }}{% endif %}fine");
  EXPECT_EQ(ReasonOf(chat_template->Render({{"user", "slow"}}, {})), "CHAT_TEMPLATE_BUDGET");
  EXPECT_EQ(*chat_template->Render(Hello(), {}), "fine");
}

// However large it is: parts, copies and insertions cost more than the text that asks for them.
TEST(ChatTemplate, IsNotDisabledByWhatARequestHolds) {
  const std::string lines(kMaxChatBytes - 100, '\n');
  const std::string x = absl::StrCat(R"({"x": ")", std::string(900'000, 'y'), R"("})");
  for (const char* source :
       {R"({{ messages[0].content.split('\n')[0] }})", R"({{ messages[0].content|list|length }})",
        R"({{ messages[0].content.replace('\n', x) }})",
        R"({{ messages[0].content|replace('\n', x) }})", "{{ x.join(messages[0].content) }}"}) {
    const absl::StatusOr<std::string> refused = Render(source, x, {{"user", lines}});
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument) << source;
    EXPECT_NE(ReasonOf(refused), "CHAT_TEMPLATE_DISABLED") << source;
    EXPECT_TRUE(Render(source, x, {{"user", "a\nb"}}).ok()) << source;
  }
}

// The JSON whose values are largest for its length.
TEST(ChatTemplate, ReadsTheWidestJsonWithinItsBudget) {
  const auto many = [](const std::string& one, size_t bytes) {
    std::string list = "[";
    while (list.size() + one.size() < bytes - 1000) absl::StrAppend(&list, one, ",");
    list.back() = ']';
    return list;
  };
  for (const auto& [open, close] :
       {std::pair<std::string, std::string>{R"({"":)", "}"}, {"[", "]"}}) {
    std::string one = "0";
    for (int i = 0; i < 58; ++i) one = absl::StrCat(open, one, close);
    const std::string tools = absl::StrCat(R"({"tools": )", many(one, 1 << 20), "}");
    ChatMessage message{"user", "hello"};
    message.more.push_back(
        {.name = "tool_calls", .value = many(one, kMaxChatBytes), .is_json = true});
    const auto text =
        Render("{% for t in tools %}{{ t | tojson(indent=4) }}{% endfor %}", tools, {message});
    EXPECT_NE(ReasonOf(text), "CHAT_TEMPLATE_DISABLED");
  }
}

constexpr char kHoards[] =
    "{% set ns = namespace(s=[]) %}{% for i in range(9999) %}"
    "{% set ns.s = [ns.s, 'ab' * 50000] %}{% endfor %}";

TEST(ChatTemplate, StaysDisabledWhenItIsCompiledAgain) {
  const std::string bomb = absl::StrCat(kHoards, "compiled again");
  EXPECT_EQ(ReasonOf(Render(bomb)), "CHAT_TEMPLATE_DISABLED");
  EXPECT_EQ(DetailsOf(ChatTemplate::Compile(bomb, {}).status()).reason, "CHAT_TEMPLATE_DISABLED");
  EXPECT_EQ(RenderOrDie("others still work"), "others still work");
}

// Whatever the templates are, what the process loses is bounded.
void LoseThreadsAndExit() {
  for (int i = 0; i < 4; ++i) {
    if (ReasonOf(Render(absl::StrCat(kHoards, i))) != "CHAT_TEMPLATE_DISABLED") std::_Exit(1);
  }
  const absl::Status refused = Render("a harmless one").status();
  const bool told = absl::StrContains(refused.message(), "until the server is restarted");
  std::_Exit(told && DetailsOf(refused).reason == "CHAT_TEMPLATE_DISABLED" ? 0 : 2);
}

TEST(ChatTemplate, NoneRunsAfterSeveralCouldNotBeStopped) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(LoseThreadsAndExit(), testing::ExitedWithCode(0), "");
}

TEST(ChatTemplate, StillRunsAfterExceedingItsSteps) {
  const auto chat_template = CompileOrDie(
      "{% if messages[0].content == 'loop' %}{% for i in range(99999) %}{% for j in range(99999) %}"
      "{% endfor %}{% endfor %}{% endif %}fine");
  EXPECT_EQ(DetailsOf(chat_template->Render({{"user", "loop"}}, {}).status()).reason,
            "CHAT_TEMPLATE_BUDGET");
  EXPECT_EQ(*chat_template->Render(Hello(), {}), "fine");
}

// Prints now and then, so that it can be stopped.
constexpr char kSlow[] =
    "{% set x = 'a' * 4000000 %}{% if messages[0].content.startswith('slow') %}"
    "{% for i in range(99999) %}{{ x | upper | length }}{% endfor %}{% endif %}fine";

TEST(ChatTemplate, StillRunsAfterOneRequestTakesItsTime) {
  const auto chat_template = CompileOrDie(kSlow);
  const std::vector<ChatMessage> much = {{"user", "slow" + std::string(100'000, 'a')}};
  const absl::Status slow = chat_template->Render(much, {}).status();
  EXPECT_EQ(DetailsOf(slow).reason, "CHAT_TEMPLATE_BUDGET");
  EXPECT_THAT(std::string(slow.message()), HasSubstr("more than 5 s"));
  EXPECT_EQ(*chat_template->Render(Hello(), {}), "fine");
}

TEST(ChatTemplate, IsNotRunAgainAfterTakingItsTimeForLittleThrice) {
  const auto chat_template = CompileOrDie(kSlow);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(*chat_template->Render(Hello(), {}), "fine");
    EXPECT_EQ(DetailsOf(chat_template->Render({{"user", "slow"}}, {}).status()).reason,
              "CHAT_TEMPLATE_BUDGET");
  }
  EXPECT_EQ(DetailsOf(chat_template->Render(Hello(), {}).status()).reason,
            "CHAT_TEMPLATE_DISABLED");
}

// A second or so of a processor each: together they take longer than one may.
TEST(ChatTemplate, DoesNotCountTheTimeThatOthersTake) {
  const auto chat_template = CompileOrDie(
      "{% set x = 'a' * 4000000 %}{% for i in range(400) %}{{ x | upper | length }}{% endfor %}");
  std::vector<std::thread> threads;
  std::vector<absl::Status> statuses(16);
  for (absl::Status& status : statuses) {
    threads.emplace_back([&] { status = chat_template->Render(Hello(), {}).status(); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) EXPECT_TRUE(status.ok()) << status;
}

// As templates gather system messages; the text so far is copied for each.
TEST(ChatTemplate, GathersTheLongestChatWithinItsBudget) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the budget is of processor time, which a sanitizer multiplies";
#endif
  const std::vector<ChatMessage> messages(
      kMaxMessages, {"user", std::string(kMaxChatBytes / kMaxMessages - 4, 'a')});
  EXPECT_EQ(RenderOrDie("{% set ns = namespace(s='') %}{% for m in messages %}"
                        "{% set ns.s = ns.s + m.content %}{% endfor %}{{ ns.s | length }}",
                        "", messages),
            absl::StrCat(kMaxChatBytes - 4 * kMaxMessages));
}

TEST(ChatTemplate, RendersTheSameFromManyThreads) {
  const auto chat_template = CompileOrDie(kChatMl);
  const std::string expected = *chat_template->Render(Hello(), {});
  std::vector<std::thread> threads;
  std::vector<int> differing(4);
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 100; ++i) {
        const auto text = chat_template->Render(Hello(), {});
        if (!text.ok() || *text != expected) ++differing[thread];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(differing, testing::Each(0));
}

TEST(ChatTemplate, RendersALongConversation) {
  std::vector<ChatMessage> messages;
  for (int i = 0; i < 4000; ++i) messages.push_back({i % 2 == 0 ? "user" : "assistant", "words"});
  EXPECT_THAT(RenderOrDie(kChatMl, "", messages), HasSubstr("words<|im_end|>"));
}

}  // namespace
}  // namespace valuescope::text
