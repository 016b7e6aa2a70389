using Npgsql;
using Shouldly;
using Sidecar.Probes.Files;
using Sidecar.Probes.PostgreSql;
using Sidecar.UnitTests.Telemetry;
using Xunit;

namespace Sidecar.UnitTests.Measurement;

public sealed class DsnFileTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("Host=db;Port=5433;Username=agent;Password=s3cret;Database=orders")]
    [InlineData("host=db port=5433 user=agent password=s3cret dbname=orders")]
    [InlineData("host = db port=5433\nuser='agent'   password='s3cret'\n# a comment\ndbname=orders application_name=other connect_timeout=3\n")]
    [InlineData("postgresql://agent:s3cret@db:5433/orders")]
    [InlineData("postgres://agent:s3cret@db:5433/orders?application_name=x&connect_timeout=10")]
    public void All_three_notations_say_the_same(string text)
    {
        var dsn = DsnFile.Parse(text, "f");

        dsn.Host.ShouldBe("db");
        dsn.Port.ShouldBe(5433);
        dsn.Username.ShouldBe("agent");
        dsn.Password.ShouldBe("s3cret");
        dsn.Database.ShouldBe("orders");
    }

    [Theory]
    [InlineData(@"user=a password='it''s'", null)]
    [InlineData(@"user=a password='it\'s; a = \\b'", @"it's; a = \b")]
    [InlineData("postgresql://a:p%40ss%3Aw%2Frd@h/d", "p@ss:w/rd")]
    [InlineData("postgresql://a:p@ss@h/d", "p@ss")]
    public void Passwords_with_odd_characters_are_read_as_libpq_reads_them(string text, string? password)
    {
        if (password is null)
        {
            Should.Throw<DsnFileException>(() => DsnFile.Parse(text, "f"));
        }
        else
        {
            DsnFile.Parse(text, "f").Password.ShouldBe(password);
        }
    }

    [Fact]
    public void IPv6_and_ssl_modes_are_read()
    {
        var dsn = DsnFile.Parse("postgresql://a@[fd00::1]/d?sslmode=verify-full&sslrootcert=/etc/ca.pem", "f");

        dsn.Host.ShouldBe("fd00::1");
        dsn.SslMode.ShouldBe(SslMode.VerifyFull);
        dsn.RootCertificate.ShouldBe("/etc/ca.pem");
    }

    [Theory]
    [InlineData("")]
    [InlineData("# nothing")]
    [InlineData("user=a colour=geheim")]
    [InlineData("user=a password=geheim geheim2=3")]
    [InlineData("user=a password=geheim and more geheim")]
    [InlineData("user=a password='geheim")]
    [InlineData("user=a password=geheim port=geheim")]
    [InlineData("user=a password=geheim sslmode=geheim")]
    [InlineData("Username=a;Password=geheim;Port=geheim")]
    [InlineData("Username=a;Passwort=geheim")]
    [InlineData("postgresql://a:geheim@h:geheim/d")]
    [InlineData("postgresql://a:geheim@h1,h2/d")]
    [InlineData("postgresql://a:geheim@h/d?geheim")]
    [InlineData("geheim")]
    public void A_bad_file_is_refused_without_repeating_what_may_be_a_password(string text) =>
        Should.Throw<DsnFileException>(() => DsnFile.Parse(text, "orders.dsn")).ToString().ShouldSatisfyAllConditions(
            m => m.ShouldContain("orders.dsn"),
            m => m.ShouldNotContain("geheim"));

    [Theory]
    [InlineData(UnixFileMode.GroupWrite)]
    [InlineData(UnixFileMode.GroupExecute)]
    [InlineData(UnixFileMode.OtherRead)]
    [InlineData(UnixFileMode.OtherWrite)]
    public void A_file_that_others_can_get_at_is_refused_by_the_agent_and_by_check_config_alike(UnixFileMode extra)
    {
        var path = _directory.Write("x.dsn", "user=a");
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | extra);

        Should.Throw<DsnFileException>(() => DsnFile.Read(path)).Message.ShouldContain("chmod 0600");
        SecretFile.Problem(path).ShouldNotBeNull().ShouldContain("chmod 0600");
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        DsnFile.Read(path).Username.ShouldBe("a");
        SecretFile.Problem(path).ShouldBeNull();
    }

    [Fact]
    public void Its_group_may_read_it_where_that_is_roots_or_the_agents()
    {
        Root.Needed("the file is given away");
        var path = _directory.Write("x.dsn", "user=a");
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead);
        DsnFile.Read(path).Username.ShouldBe("a");
        SecretFile.Problem(path).ShouldBeNull();

        TestTools.Run("chgrp", "", "games", path).ExitCode.ShouldBe(0);
        Should.Throw<DsnFileException>(() => DsnFile.Read(path)).Message.ShouldContain("chgrp conn-sidecar");
        SecretFile.Problem(path).ShouldNotBeNull().ShouldContain("chgrp conn-sidecar");
    }

    [Fact]
    public void A_file_of_another_user_and_what_is_no_file_is_refused()
    {
        Root.Needed("the file is given away");
        var path = _directory.Write("x.dsn", "user=a");
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        TestTools.Run("chown", "", "nobody", path).ExitCode.ShouldBe(0);
        Should.Throw<DsnFileException>(() => DsnFile.Read(path)).Message.ShouldContain("chown root");

        TestTools.Run("mkfifo", "", "-m", "600", _directory.File("pipe")).ExitCode.ShouldBe(0);
        Should.Throw<DsnFileException>(() => DsnFile.Read(_directory.File("pipe"))).Message.ShouldContain("is not a file");
        SecretFile.Problem(_directory.Path).ShouldNotBeNull().ShouldContain("is not a file");
    }

    [Fact]
    public void A_missing_file_is_named() =>
        Should.Throw<DsnFileException>(() => DsnFile.Read(_directory.File("none.dsn"))).Message.ShouldContain("none.dsn");
}
