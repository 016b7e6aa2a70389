using System.Globalization;
using Shouldly;
using Sidecar.Fuzz;
using Sidecar.UnitTests.Telemetry;
using Xunit;

namespace Sidecar.UnitTests;

/// <summary>
/// A short run of each target of the fuzzer, in a process of its own with the memory that the service has; scripts/fuzz.sh
/// tries millions of inputs. Damaged input is read as damaged, and what was found once is tried again by its seed.
/// </summary>
public sealed class FuzzTests
{
    public static TheoryData<string, int> Kinds => new()
    {
        { "netlink", 40_000 },
        { "sockets", 20_000 },
        { "proc", 100_000 },
        { "proc-tree", 20_000 },
        { "configuration", 10_000 },
        { "evidence", 20_000 },
        { "ledger", 20_000 },
        { "incidents", 20_000 },
        { "replay", 20_000 },
        { "control", 20_000 },
        { "postgresql", 20_000 },
        { "dns", 5_000 },
    };

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Nothing_that_is_read_ends_hangs_or_fools_the_agent(string target, int inputs)
    {
        var (exitCode, output) = Fuzz("--target", target, "--inputs", inputs.ToString(CultureInfo.InvariantCulture));
        exitCode.ShouldBe(0, output);
        output.ShouldContain($"{target} ", Case.Sensitive, output);
    }

    [Fact]
    public void Every_target_has_its_short_run() => Kinds.Select(row => (string)row[0]).ShouldBe(FuzzKind.All.Select(kind => kind.Name));

    [Fact]
    public void A_target_that_is_not_there_is_an_error() => Fuzz("--target", "nothing").ExitCode.ShouldBe(2);

    private static (int ExitCode, string Output) Fuzz(params string[] arguments) =>
        TestTools.Run("dotnet", "", [Path.Combine(AppContext.BaseDirectory, "Sidecar.Fuzz.dll"), .. arguments]);
}
